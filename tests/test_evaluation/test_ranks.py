"""CaptionMetric on several ranks: order of the images, and errors of a rank."""

import json

import pytest
import torch
from torch import multiprocessing

from pcm_plugin.evaluation import CaptionMetric
from pcm_plugin.evaluation.scorers import SCORERS
from tests.test_evaluation.test_caption_metric import REFERENCES, score

CAPTIONS = [(7, "a dog runs"), (8, "a red car"), (9, "two horses")]


def evaluate(rank, folder, fault):
    meeting = f"file://{folder}/meeting"
    torch.distributed.init_process_group("gloo", meeting, rank=rank, world_size=2)
    metric = CaptionMetric(outfile=folder / "captions.json")
    # Like the distributed sampler: interleaved, with the first image again at the end.
    own = [CAPTIONS[i % 3] for i in range(rank, 4, 2)]
    samples = [{"image_id": i, "pred_caption": c, "gt_caption": REFERENCES[i]} for i, c in own]
    if fault == "sample" and rank == 1:
        del samples[0]["pred_caption"]
    if fault == "compute":
        metric.compute_metrics = lambda results, size: 1 / 0
    if fault == "scorer":
        SCORERS["CIDEr"] = lambda references, captions: 1 / 0
    metric.process(None, samples)
    try:
        found = metric.evaluate(3)
    except RuntimeError as error:
        found = str(error)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("fault", [None, "sample", "compute", "scorer"])
def test_all_ranks_return_the_same(fault, tmp_path):
    multiprocessing.start_processes(
        evaluate, (tmp_path, fault), nprocs=2, start_method="forkserver"
    )
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    if fault == "scorer":
        assert first.pop("caption/CIDEr") != second.pop("caption/CIDEr")  # NaN
    else:
        assert first == second
    if fault == "sample":
        assert first.startswith("CaptionMetric failed on rank 1: KeyError")
        assert "pred_caption" in first
    elif fault == "compute":
        assert first == "CaptionMetric failed on rank 0: ZeroDivisionError: division by zero"
    elif fault is None:
        assert first == score(CAPTIONS)
        written = json.loads((tmp_path / "captions.json").read_text())
        assert [row["image_id"] for row in written] == [7, 8, 9]
