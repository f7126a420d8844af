"""The Python code of the documentation runs."""

import inspect
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from PIL import Image

from pcm_plugin.apis import CaptionInferencer
from pcm_plugin.apis.zoo import find_weights
from pcm_plugin.formats.concept_set import save_concepts
from pcm_plugin.formats.tensor_file import write_tensors
from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.models import OpenCLIPBackbone
from pcm_plugin.registry import HOOKS
from pcm_plugin.registry import METRICS as PLUGIN_METRICS
from pcm_plugin.registry import MODELS as PLUGIN_MODELS
from pcm_plugin.synthesis.concepts.nouns import Noun
from pcm_plugin.synthesis.concepts.tagger import find_concepts
from tests.builders import build_store
from tests.image_text_models import build_model
from tests.mmpretrain_models import skip_without_mmpretrain_models
from tests.test_docs.pages import PAGES, ROOT, code_blocks, page_id

PROJECT_PAGE = ROOT / "docs" / "pcm_in_your_project.md"
CAPTIONER_PAGE = ROOT / "docs" / "your_own_captioner.md"
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
    for name in ("SmallCaptioner", "GRUCaptioner"):
        MODELS.module_dict.pop(name, None)
    sys.modules.pop("gru_captioner", None)
    DefaultScope._instance_dict.clear()


@pytest.fixture
def toy_data(tmp_path, monkeypatch):
    """Write files as of `pcm demo --recipe toy` with random features; enter their folder."""
    town = tmp_path / "data" / "toy" / "town"
    town.mkdir(parents=True)
    for name in ("train_store", "val_store"):
        build_store(town / name, CAPTIONS, num_patches=49, patch_dim=192, clip_dim=128)
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


def test_a_model_with_the_neck_trains(toy_data):
    *_, captioner, training = code_blocks(PROJECT_PAGE, "python")
    torch.manual_seed(0)
    runner = run_block(training, run_block(captioner))["runner"]
    assert runner.message_hub.get_scalar("train/loss").current() > 0
    assert runner.message_hub.get_scalar("val/caption/CIDEr").current() >= 0
    assert list(toy_data.glob("work_dirs/small_captioner/epoch_2.pth"))


def test_a_captioner_of_your_own_trains_and_captions(toy_data, monkeypatch):
    captioner, config = code_blocks(CAPTIONER_PAGE, "python")
    Path("gru_captioner.py").write_text(captioner)
    Path("gru_toy.py").write_text(config)
    monkeypatch.syspath_prepend(toy_data)
    cfg = Config.fromfile("gru_toy.py")
    cfg.clip = dict(model_name=f"local-dir:{ROOT}/pcm_plugin/toyworld/assets/clip")
    write_tensors(Path("head.safetensors"), OpenCLIPBackbone(**cfg.clip).clip_head(), {})
    cfg.model.neck.clip_head = "head.safetensors"
    cfg.work_dir, cfg.train_cfg.max_epochs = "work_dirs/gru_toy", 2
    torch.manual_seed(0)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.message_hub.get_scalar("train/loss").current() > 0
    assert runner.message_hub.get_scalar("val/caption/CIDEr").current() >= 0
    inferencer = CaptionInferencer(cfg, "work_dirs/gru_toy/epoch_2.pth")
    image = Image.open(ROOT / "docs" / "images" / "examples" / "town_test_00006.png")
    (result,) = inferencer([image], num_captions=3, beam_size=4)["predictions"]
    log_probs = [caption["log_prob"] for caption in result["captions"]]
    assert len(log_probs) == 3
    assert log_probs == sorted(log_probs, reverse=True)
    # The search and teacher forcing agree on the probability of a caption.
    model = inferencer.model
    feats = model.extract_feat(model.backbone.preprocess(image)[None])
    logits, targets = model.forward_decoder(model.encode(*feats), [result["caption"]])
    words = logits.log_softmax(-1)[0].gather(1, targets[0, :, None])
    assert words.sum().item() == pytest.approx(result["log_prob"], abs=1e-3)


def test_the_inferencer_captions_a_folder(tmp_path, monkeypatch, capsys):
    shutil.copytree(ROOT / "docs" / "images" / "examples", tmp_path / "photos")
    shutil.copy(tmp_path / "photos" / "town_test_00006.png", tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    inferencer, by_name, *_ = code_blocks(ROOT / "docs" / "captioning.md", "python")
    run_block(inferencer.replace("captioner.safetensors", str(find_weights("pcm-net_toy"))))
    assert len(capsys.readouterr().out.splitlines()) == len([*(tmp_path / "photos").iterdir()])
    skip_without_mmpretrain_models()
    run_block(by_name)
    # mmpretrain may leave its progress bar on the same line.
    assert capsys.readouterr().out.splitlines()[-1].endswith("a dog and a cake on a street")


def test_the_inferencer_captions_regions(tmp_path, monkeypatch, capsys, decap_file):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (400, 300), "red").save("photo.jpg")
    _, _, regions, _ = code_blocks(ROOT / "docs" / "captioning.md", "python")
    run_block(regions.replace("decap.safetensors", str(decap_file)))
    box, point = capsys.readouterr().out.splitlines()
    assert box.endswith("[10, 20, 200, 300] None")
    assert point.endswith("None [320, 240]")


def test_a_feature_store_is_read(tmp_path, monkeypatch):
    build_store(tmp_path / "data" / "mine" / "train_store", CAPTIONS * 4)
    monkeypatch.chdir(tmp_path)
    (block,) = code_blocks(ROOT / "docs" / "data_formats.md", "python")
    run_block(block)


def test_a_model_of_transformers_captions_an_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_model(tmp_path / "models" / "llava", "llava")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photos" / "1.jpg")
    block, _ = [b for b in code_blocks(ROOT / "docs" / "evaluation.md", "python") if "import" in b]
    block = block.replace("smolvlm", "llava").replace("cuda:0", "cpu")
    (caption,) = run_block(block)["captions"]
    assert isinstance(caption, str)


def test_the_gap_between_two_stores_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("train_store", "photo_store"):
        build_store(tmp_path / "data" / "mine" / name, CAPTIONS * 4)
    _, block = [b for b in code_blocks(ROOT / "docs" / "evaluation.md", "python") if "import" in b]
    run_block(block)
    assert "'mean_distance': 0.0" in capsys.readouterr().out


def test_a_tagger_finds_nouns(tmp_path, monkeypatch):
    """The block is a module of spaCy, which is replaced by an object with the same interface."""
    (block,) = code_blocks(ROOT / "docs" / "languages.md", "python")
    (tmp_path / "my_tagger.py").write_text(block)
    monkeypatch.chdir(tmp_path)
    lemmas = {"Hunde": "Hund", "Hund": "Hund"}

    def pipe(captions):
        for caption in captions:
            yield [
                SimpleNamespace(lemma_=lemmas.get(w, w), pos_="NOUN" if w in lemmas else "VERB")
                for w in caption.split()
            ]

    spacy = SimpleNamespace(load=lambda name, disable: SimpleNamespace(pipe=pipe))
    monkeypatch.setitem(sys.modules, "spacy", spacy)
    found = find_concepts(["Hunde spielen", "ein Hund"], "my_tagger:find_nouns", 1)
    assert found == [Noun("Hund", 2)]


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
            built = PLUGIN_MODELS.get(name) or PLUGIN_METRICS.get(name) or HOOKS.get(name)
            inspect.signature(built).bind(**arguments)

    variables = run_block(block)
    check([value for key, value in variables.items() if not key.startswith("__")])


def test_all_python_blocks_are_tested():
    # Of the eight tests above that run blocks, and of test_webui.py.
    others = 2 + 2 + 2 + 1 + 1 + 1 + 1 + 1 + 1
    assert sum(len(code_blocks(page, "python")) for page in PAGES) == len(SETTINGS) + others
