"""The Python code of the documentation runs."""

import inspect
import shutil

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from pcm_plugin.apis.zoo import find_weights
from pcm_plugin.formats.concept_set import save_concepts
from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.registry import METRICS as PLUGIN_METRICS
from pcm_plugin.registry import MODELS as PLUGIN_MODELS
from tests.builders import build_store
from tests.test_docs.pages import PAGES, ROOT, code_blocks, page_id

CAPTIONER_PAGE = ROOT / "docs" / "pcm_in_your_captioner.md"
CAPTIONS = [["a dog runs", "the dog"], ["a cat sits on a sofa"], ["a boat", "two boats"]]
SETTINGS = [
    pytest.param(block, id=f"{page_id(page)}: {block.split(' ')[0]}")
    for page in PAGES
    for block in code_blocks(page, "python")
    if "import" not in block
]


@pytest.fixture(autouse=True)
def separate_registry():
    """Forget the captioner that a page registers, and the default scope."""
    yield
    MODELS.module_dict.pop("SmallCaptioner", None)
    DefaultScope._instance_dict.clear()


@pytest.fixture
def toy_data(tmp_path, monkeypatch):
    """Write files as of `make demo` with random features, and make their folder the current one."""
    town = tmp_path / "data" / "toy" / "town"
    town.mkdir(parents=True)
    for name in ("train_store", "val_store"):
        build_store(town / name, CAPTIONS, num_patches=49, patch_dim=128, clip_dim=128)
    texts = [text for captions in CAPTIONS for text in captions]
    Vocabulary.build(texts, min_count=1).to_file(town / "vocabulary.txt")
    save_concepts(town / "concepts.safetensors", list("abcdefg"), torch.randn(7, 128))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_block(block, variables=None):
    """Execute a code block and return its variables."""
    variables = {"__name__": "page"} if variables is None else variables
    exec(compile(block, "page", "exec"), variables)
    return variables


def test_a_captioner_of_your_own_trains(toy_data):
    *_, captioner, training = code_blocks(CAPTIONER_PAGE, "python")
    torch.manual_seed(0)
    runner = run_block(training, run_block(captioner))["runner"]
    assert runner.message_hub.get_scalar("train/loss").current() > 0
    assert runner.message_hub.get_scalar("val/caption/CIDEr").current() >= 0
    assert list(toy_data.glob("work_dirs/small_captioner/epoch_2.pth"))


def test_the_inferencer_captions_a_folder(tmp_path, monkeypatch, capsys):
    shutil.copytree(ROOT / "docs" / "images" / "examples", tmp_path / "photos")
    shutil.copy(tmp_path / "photos" / "town_test_00006.png", tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    inferencer, by_name = code_blocks(ROOT / "docs" / "captioning.md", "python")
    run_block(inferencer.replace("captioner.safetensors", str(find_weights("pcm-net_toy"))))
    assert len(capsys.readouterr().out.splitlines()) == len([*(tmp_path / "photos").iterdir()])
    pytest.importorskip("mmpretrain.models", exc_type=ImportError)
    run_block(by_name)
    # mmpretrain may leave its progress bar on the same line.
    assert capsys.readouterr().out.splitlines()[-1].endswith("a dog in the city")


def test_a_feature_store_is_read(tmp_path, monkeypatch):
    build_store(tmp_path / "data" / "mine" / "train_store", CAPTIONS * 4)
    monkeypatch.chdir(tmp_path)
    (block,) = code_blocks(ROOT / "docs" / "feature_store.md", "python")
    run_block(block)


@pytest.mark.parametrize("block", SETTINGS)
def test_settings_are_complete_and_known(block):
    """Each type gets all of its required arguments, and none that it does not take."""

    def check(node):
        if isinstance(node, (list, dict)):
            for child in node.values() if isinstance(node, dict) else node:
                check(child)
        if isinstance(node, dict) and node.get("type", "").startswith("pcm_plugin."):
            name = node["type"]
            arguments = {k: v for k, v in node.items() if k not in ("type", "_delete_")}
            if name == "pcm_plugin.PrefixMapper":
                arguments["out_dims"] = None  # set by the captioner
            built = PLUGIN_MODELS.get(name) or PLUGIN_METRICS.get(name)
            inspect.signature(built).bind(**arguments)

    variables = run_block(block)
    check([value for key, value in variables.items() if not key.startswith("__")])


def test_all_python_blocks_are_tested():
    others = 2 + 2 + 1  # of the three tests above that run blocks
    assert sum(len(code_blocks(page, "python")) for page in PAGES) == len(SETTINGS) + others
