"""The code of the pages does what they say."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from pcm_plugin.formats.concept_set import save_concepts
from pcm_plugin.formats.vocabulary import Vocabulary
from tests.builders import build_store

PAGE = Path(__file__).parents[2] / "docs" / "pcm_in_your_captioner.md"
CAPTIONS = [["a dog runs", "the dog"], ["a cat sits on a sofa"], ["a boat", "two boats"]]


def blocks():
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """What `make demo` leaves of the town, with random features, in the current folder."""
    town = tmp_path / "data" / "toy" / "town"
    town.mkdir(parents=True)
    for name in ("train_store", "val_store"):
        build_store(town / name, CAPTIONS, num_patches=49, patch_dim=128, clip_dim=128)
    texts = [text for captions in CAPTIONS for text in captions]
    Vocabulary.build(texts, min_count=1).to_file(town / "vocabulary.txt")
    save_concepts(town / "concepts.safetensors", list("abcdefg"), torch.randn(7, 128))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_has_its_code():
    assert [block.split("\n")[0].split("(")[0].split(" ")[0] for block in blocks()] == [
        "neck",
        "vision_encoder",
        "model",
        "import",
        "from",
    ]


def test_the_captioner_of_the_page_trains_and_captions(toy):
    *_, captioner, training = blocks()
    names = {"__name__": "page"}
    torch.manual_seed(0)
    try:
        exec(compile(captioner, str(PAGE), "exec"), names)
        exec(compile(training, str(PAGE), "exec"), names)
    finally:
        MODELS.module_dict.pop("SmallCaptioner", None)
        DefaultScope._instance_dict.clear()
    runner = names["runner"]
    assert runner.message_hub.get_scalar("train/loss").current() > 0
    assert runner.message_hub.get_scalar("val/caption/CIDEr").current() >= 0
    assert list(toy.glob("work_dirs/small_captioner/epoch_2.pth"))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_settings_of_the_page_are_known(number):
    """What the page shows is enough for each type, and nothing that it does not know."""
    import inspect

    from pcm_plugin.registry import MODELS as OURS

    values: dict = {}
    exec(blocks()[number], values)
    (settings,) = (value for key, value in values.items() if key != "__builtins__")

    def check(node):
        if isinstance(node, dict):
            scope, _, name = node.get("type", "").rpartition(".")
            if scope == "pcm_plugin":
                given = {
                    key: value for key, value in node.items() if key not in ("type", "_delete_")
                }
                if name == "PrefixMapper":
                    given["out_dims"] = None  # the captioner's to say
                inspect.signature(OURS.get(f"pcm_plugin.{name}")).bind(**given)
            for value in node.values():
                check(value)

    check(settings)
