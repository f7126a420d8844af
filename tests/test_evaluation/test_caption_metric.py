import json
import logging
import math

import pytest
import torch
from mmengine.dataset import default_collate
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmpretrain.structures import DataSample
from torch.utils.data import DataLoader

from pcm_plugin.evaluation.scorers import SCORERS
from pcm_plugin.registry import DATASETS, METRICS
from tests.builders import build_store

REFERENCES = {
    7: ["A dog runs on the grass.", "the dog is running"],
    8: ["a red car in a street", "a car parked at the road"],
    9: ["two people ride horses", "people on two brown horses"],
}


def score(captions, references=REFERENCES, **kwargs):
    metric = METRICS.build({"type": "pcm_plugin.CaptionMetric", **kwargs})
    samples = [
        {"image_id": i, "pred_caption": text, "gt_caption": references[i]} for i, text in captions
    ]
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def test_a_caption_equal_to_a_reference_scores_full_marks():
    scores = score([(i, texts[0].upper()) for i, texts in REFERENCES.items()])
    for name in ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L"):
        assert scores[f"caption/{name}"] == pytest.approx(100, abs=1e-3)
    assert set(scores) == {f"caption/BLEU-{n}" for n in (1, 2, 3, 4)} | {
        "caption/ROUGE-L",
        "caption/CIDEr",
    }


def test_scores_worked_out_by_hand():
    references = {1: ["a b c d"], 2: ["e f g h"]}
    scores = score([(1, "a b x d"), (2, "e f g h")], references)
    assert scores["caption/BLEU-1"] == pytest.approx(100 * 7 / 8, abs=1e-3)
    assert scores["caption/BLEU-2"] == pytest.approx(100 * math.sqrt(7 / 8 * 4 / 6), abs=1e-3)
    assert scores["caption/ROUGE-L"] == pytest.approx(100 * (3 / 4 + 1) / 2, abs=1e-3)
    # Every n-gram is in one of two images, so all weigh log 2. Image 1 shares 3 of 4 words
    # (cosine 3/4) and 1 of 3 pairs; image 2 all, 10 by definition.
    assert scores["caption/CIDEr"] == pytest.approx(100 * 10 * ((3 / 4 + 1 / 3) / 4 + 1) / 2)


def test_padding_of_the_sampler_counts_once_and_ids_may_be_anything():
    references = {("x", 1): ["a b c d"], "n2": ["e f g h"], 3: ["i j k l"]}
    captions = [(("x", 1), "a b x d"), ("n2", "e f g h"), (3, "i j k k")]
    assert score([*captions, captions[0], captions[0]], references) == score(captions, references)


def test_data_samples_and_tensor_ids_are_taken():
    metric = METRICS.build({"type": "pcm_plugin.CaptionMetric", "scorers": ["BLEU"]})
    sample = DataSample(metainfo={"image_id": torch.tensor(3)})
    sample.pred_caption, sample.gt_caption = "a b c d", "a b c d"
    metric.process(None, [sample, sample])
    assert metric.evaluate(2)["caption/BLEU-4"] == pytest.approx(100, abs=1e-3)


def test_nothing_is_printed(capsys):
    score([(i, "a dog") for i in REFERENCES])
    assert capsys.readouterr().out == ""


@pytest.fixture
def logged(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_a_failing_scorer_is_named_and_the_others_come(monkeypatch, logged):
    def fails(references, captions):
        raise OSError("no such program")

    monkeypatch.setitem(SCORERS, "ROUGE-L", fails)
    scores = score([(i, "a dog") for i in REFERENCES])
    assert math.isnan(scores.pop("caption/ROUGE-L"))
    assert {"caption/BLEU-4", "caption/CIDEr"} < set(scores)
    assert not any(map(math.isnan, scores.values()))
    errors = [r.getMessage() for r in logged.records if r.levelno == logging.ERROR]
    assert errors == ["scorer ROUGE-L failed: OSError: no such program"]


def test_images_without_reference_are_not_scored(logged):
    references = {**REFERENCES, 10: []}
    with_it = score([(i, "a dog runs") for i in references], references)
    assert with_it == score([(i, "a dog runs") for i in REFERENCES])
    assert "1 of 4 images have no reference" in logged.text


def test_empty_captions_score_zero():
    scores = score([(i, "") for i in REFERENCES])
    assert all(value == pytest.approx(0, abs=1e-3) for value in scores.values())


def test_captions_are_written_in_coco_results_form(tmp_path):
    path = tmp_path / "new" / "captions.json"
    references = {"42": ["a b"], "007": ["c d"], "n1": ["e f"]}
    score([("42", "A b."), ("007", "c"), ("n1", "e"), ("42", "A b.")], references, outfile=path)
    assert json.loads(path.read_text()) == [
        {"image_id": 42, "caption": "A b."},
        {"image_id": "007", "caption": "c"},
        {"image_id": "n1", "caption": "e"},
    ]


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match="METEOR"):
        METRICS.build({"type": "pcm_plugin.CaptionMetric", "scorers": ["METEOR"]})
    metric = METRICS.build({"type": "pcm_plugin.CaptionMetric"})
    with pytest.raises(KeyError, match="pred_caption"):
        metric.process(None, [{"image_id": 1, "gt_caption": ["a"]}])


def test_dataset_to_scores(tmp_path):
    build_store(tmp_path / "store", list(REFERENCES.values()))
    dataset = DATASETS.build(
        {"type": "pcm_plugin.SynthCaptionDataset", "store": tmp_path / "store", "test_mode": True}
    )
    evaluator = Evaluator({"type": "pcm_plugin.CaptionMetric"})
    for batch in DataLoader(dataset, 2, collate_fn=default_collate):
        for sample in batch["data_samples"]:
            sample.pred_caption = sample.gt_caption[1]
        evaluator.process(data_samples=batch["data_samples"], data_batch=batch)
    scores = evaluator.evaluate(len(dataset))
    assert scores["caption/BLEU-4"] == pytest.approx(100, abs=1e-3)
