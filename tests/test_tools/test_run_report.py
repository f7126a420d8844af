"""CIDEr of single images in ``pcm report``."""

import pytest
from mmengine.config import Config

from pcm_plugin.commands.run_report import caption
from pcm_plugin.evaluation import CaptionMetric
from tests.builders import build_store

REFERENCES = [["一只狗在公园里", "公园里有狗"], ["两只猫在桌子上", "桌上有猫"], ["一辆红色的汽车"]]
PREDICTED = ["狗在公园里", "一只猫", "红色的汽车"]


class FixedCaptions:
    """Captioner with fixed captions."""

    def test_step(self, batch):
        for sample in batch["data_samples"]:
            sample.pred_caption = PREDICTED[int(sample.image_id.removeprefix("image"))]
        return batch["data_samples"]


@pytest.mark.parametrize("language", ["zh", None])
def test_cider_is_computed_in_the_language_of_the_metric(tmp_path, language):
    build_store(tmp_path / "store", REFERENCES)
    dataset = {"type": "pcm_plugin.SynthCaptionDataset", "store": str(tmp_path / "store")}
    loader = {
        "batch_size": 2,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "collate_fn": {"type": "default_collate"},
        "dataset": {**dataset, "test_mode": True},
    }
    settings = {} if language is None else {"language": language}
    evaluator = {"type": "pcm_plugin.CaptionMetric", **settings}
    cfg = Config({"test_dataloader": loader, "test_evaluator": evaluator})
    scored = caption(cfg, "test", FixedCaptions())
    metric = CaptionMetric(["CIDEr"], prefix="", **settings)
    metric.process(None, [sample for sample, _ in scored])
    mean = sum(cider for _, cider in scored) / len(scored)
    assert mean == pytest.approx(metric.evaluate(3)["CIDEr"])
    # As English, no Chinese caption shares a word with its references.
    assert (mean > 50) == (language == "zh")
