import pytest
from mmengine.config import Config

from pcm_plugin.engine.caption_metrics import caption_metric_settings, captions_language

CHINESE = {"type": "pcm_plugin.CaptionMetric", "language": "zh"}
DEFAULT = {"type": "pcm_plugin.CaptionMetric"}
OTHER = {"type": "mmengine.DumpResults", "out_file_path": "results.pkl"}


@pytest.mark.parametrize(
    ("evaluator", "settings"),
    [
        (CHINESE, CHINESE),
        ([OTHER, CHINESE, DEFAULT], CHINESE),
        (OTHER, {}),
        (None, {}),
        ({"type": "Evaluator", "metrics": [CHINESE]}, CHINESE),
    ],
)
def test_the_first_caption_metric_is_found(evaluator, settings):
    assert caption_metric_settings(Config({"val_evaluator": evaluator}), "val") == settings


def test_the_first_loop_with_a_metric_has_the_language():
    cfg = Config({"val_evaluator": CHINESE, "test_evaluator": DEFAULT})
    assert captions_language(cfg, ["val", "test"]) == "zh"
    assert captions_language(cfg, ["test", "val"]) == "en"
    assert captions_language(Config({"val_evaluator": None}), ["test", "val"]) == "en"
    assert captions_language(Config({"val_evaluator": CHINESE}), ["test", "val"]) == "zh"
