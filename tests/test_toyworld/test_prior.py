"""Tests of the packaged CLIP and diffusion models, and of their training."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn

from pcm_plugin.commands.toyworld.steps import GUIDANCE
from pcm_plugin.formats.atomic_io import content_id
from pcm_plugin.models.backbones import OpenCLIPBackbone
from pcm_plugin.models.functional.patch_attention import PATCH_MODES
from pcm_plugin.toyworld import ASSETS
from pcm_plugin.toyworld.prior import compositions, judge, quality
from pcm_plugin.toyworld.prior.clip import PriorCLIP, contrastive_loss, model_config
from pcm_plugin.toyworld.prior.training import train
from tests.test_tools.commands import run


@pytest.fixture(scope="module")
def clip() -> OpenCLIPBackbone:
    return OpenCLIPBackbone(f"local-dir:{ASSETS / 'clip'}")


def test_the_models_are_small():
    files = [*ASSETS.rglob("*"), *(ASSETS.parents[1] / "model_zoo").iterdir()]
    assert sum(file.stat().st_size for file in files if file.is_file()) <= 20e6
    for part in ("clip", "diffusion"):
        assert "## Data" in (ASSETS / part / "README.md").read_text()


def test_clip_retrieves_the_picture_of_a_caption(clip):
    figures = quality.retrieval(clip, 500)
    assert figures["R@1"] >= 50


def test_clip_predicts_concepts(clip):
    figures = quality.concept_recall(clip, 200)
    assert figures["recall@5"] >= 85
    assert figures["chance"] < 20


def test_the_accuracy_of_patches_is_that_of_the_card(clip):
    figures = json.loads((ASSETS / "quality.json").read_text())
    found = {mode: OpenCLIPBackbone(clip.model_name, patch_mode=mode) for mode in PATCH_MODES}
    for mode, backbone in found.items():
        measured = quality.patch_accuracy(backbone, 60)
        expected = figures[f"patch accuracy, {mode}"]["accuracy"]
        assert measured["accuracy"] == pytest.approx(expected, abs=6)
        assert measured["chance"] < 20


def test_captions_are_nearer_to_their_own_pictures(clip):
    figures = quality.cosines(clip, 50)
    assert 0.25 <= figures["pairs"] <= 0.4
    assert figures["random pairs"] < figures["pairs"] - 0.12


def test_the_training_encodes_like_the_model():
    import open_clip

    torch.manual_seed(0)
    model = open_clip.CLIP(**model_config(50)["model_cfg"]).eval()
    prior = PriorCLIP(model)
    pixels = torch.rand(3, 3, 112, 112)
    whole, patches = prior.encode_images(pixels)
    expected = nn.functional.normalize(model.encode_image(pixels), dim=-1)
    torch.testing.assert_close(whole, expected, atol=1e-5, rtol=0)
    assert patches.shape == (3, 49, 128)
    # Dropping patches changes the others through attention only.
    _, kept = prior.encode_images(pixels, dropped=0.5)
    assert kept.shape == (3, 24, 128)
    similar = torch.einsum("bnd,bmd->bnm", kept, patches).amax(2)
    assert similar.min() > 0.9
    ids = torch.zeros(2, 28, dtype=torch.long)
    ids[0, :3], ids[1, :5] = torch.tensor([1, 7, 49]), torch.tensor([1, 9, 8, 4, 49])
    expected = nn.functional.normalize(model.encode_text(ids), dim=-1)
    torch.testing.assert_close(prior.encode_texts(ids), expected, atol=1e-5, rtol=0)


def test_the_diffusion_pipeline_depends_on_caption_and_seed():
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(ASSETS / "diffusion", torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)

    def generate(caption: str, seed: int) -> np.ndarray:
        generator = torch.Generator().manual_seed(seed)
        image = pipeline(caption, num_inference_steps=4, generator=generator).images[0]
        return np.asarray(image, float)

    first = generate("a red car on a street", 0)
    assert first.shape == (112, 112, 3)
    assert (first == generate("a red car on a street", 0)).all()
    assert np.abs(first - generate("a red car on a street", 1)).mean() > 5
    assert np.abs(first - generate("a white sheep in the snow", 0)).mean() > 1


def test_generated_images_match_their_captions(clip):
    from diffusers import DiffusionPipeline

    captions = [
        "a green tree in the snow",
        "a boat on a lake",
        "a brown horse on a beach",
        "an elephant in the desert",
        "a car on a street",
        "a house in a park",
    ]
    pipeline = DiffusionPipeline.from_pretrained(ASSETS / "diffusion", torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    made = pipeline(captions, num_inference_steps=8, guidance_scale=7.5, generator=generator)
    _, images = clip(torch.stack([clip.preprocess(image) for image in made.images]))
    scores = 2.5 * images @ clip.encode_text(captions).T
    own, others = scores.diag().mean(), scores[~torch.eye(6, dtype=torch.bool)].mean()
    assert own > others + 0.3


def test_the_balanced_threshold_has_equal_precision_and_recall():
    seen, depicted = torch.rand(40, 36), torch.zeros(40, 36)
    depicted[:, ::9] = 1
    threshold = judge.balanced_threshold(seen, depicted)
    assert (seen > threshold).sum() == depicted.sum()
    only_first = torch.zeros(2, 36)
    only_first[:, 0] = 1
    first, second = list(judge.KINDS)[:2]
    assert judge.found_share(only_first, [[first, second], [first]], 0.5) == pytest.approx(2 / 3)


def test_shuffled_has_no_fixed_points():
    items = list(range(30))
    mixed = quality.shuffled(items)
    assert sorted(mixed) == items
    assert all(a != b for a, b in zip(items, mixed, strict=True))


def test_contrastive_loss_is_cross_entropy_with_one_positive():
    logits = torch.randn(5, 5)
    expected = nn.functional.cross_entropy(logits, torch.arange(5))
    torch.testing.assert_close(contrastive_loss(logits, torch.eye(5, dtype=torch.bool)), expected)


def test_positives_are_not_negatives_of_each_other():
    truth = torch.tensor([[True, True, False]])
    a = contrastive_loss(torch.tensor([[1.0, 1.0, 0.0]]), truth)
    b = contrastive_loss(torch.tensor([[1.0, 1.0, -9.0]]), truth)
    assert b < 1e-3 < a


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path):
    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def losses(net: nn.Module):
        return lambda step: net(torch.randn(16, 4)).square().mean()

    whole = model()
    expected = train(whole, losses(whole), tmp_path / "a.safetensors", 12, 0.01, save_every=6)

    class Killed(Exception):
        pass

    first = model()

    def until_eight(step):
        if step == 8:
            raise Killed
        return losses(first)(step)

    with pytest.raises(Killed):
        train(first, until_eight, tmp_path / "b.safetensors", 12, 0.01, save_every=6)
    second = model()
    found = train(second, losses(second), tmp_path / "b.safetensors", 12, 0.01, save_every=6)
    for mine, theirs in zip(found.parameters(), expected.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_the_packaged_weights_reach_their_thresholds():
    figures = json.loads((ASSETS / "quality.json").read_text())
    for part in ("clip", "diffusion"):
        assert figures["measured"][part] == content_id(ASSETS / part), "measure-prior"
    assert figures["retrieval among 500"]["R@1"] >= 50
    assert figures["concept recall"]["recall@5"] >= 85
    patches = figures["patch accuracy, plain"]
    assert patches["chance"] < 20
    assert 30 <= patches["accuracy"] <= 55
    assert 0.25 <= figures["cosine"]["pairs"] <= 0.4
    assert figures["cosine"]["random pairs"] < figures["cosine"]["pairs"] - 0.12
    assert figures["CIDEr of DeCap"]["share"] <= 60
    # With the guidance scale that shows most. Lower ones make better training data.
    synthetic = [value for name, value in figures.items() if name.startswith("synthetic images")]
    assert 60 <= max(of_guidance["named things found"] for of_guidance in synthetic) <= 95
    random = figures["random captions"]["CLIP score"]
    assert random < figures[f"synthetic images, guidance {GUIDANCE:g}"]["CLIP score"] - 0.3
    assert random < figures["real pictures"]["CLIP score"] - 0.3


@pytest.mark.xfail(strict=True, reason="a target that is missed; the model card states by how much")
def test_synthetic_images_have_the_clip_score_of_real_ones():
    figures = json.loads((ASSETS / "quality.json").read_text())
    synthetic = figures[f"synthetic images, guidance {GUIDANCE:g}"]["CLIP score"]
    assert synthetic >= figures["real pictures"]["CLIP score"]


def test_the_model_cards_state_the_measurements():
    figures = json.loads((ASSETS / "quality.json").read_text())
    decap = figures["CIDEr of DeCap"]
    shares = [
        figures["retrieval among 500"]["R@1"],
        figures["concept recall"]["recall@5"],
        *(figures[f"patch accuracy, {mode}"]["accuracy"] for mode in PATCH_MODES),
        decap["share"],
    ]
    card = (ASSETS / "clip" / "README.md").read_text()
    assert [f"{share:.1f} %" for share in shares if f"| {share:.1f} %" not in card] == []
    cosines = figures["cosine"]
    for value in (cosines["pairs"], cosines["random pairs"]):
        assert f"| {value:.3f} |" in card
    card = (ASSETS / "diffusion" / "README.md").read_text()
    columns = ["real pictures", *(name for name in figures if name.startswith("synthetic images"))]
    for measure in figures["real pictures"]:
        digits = 3 if measure == "CLIP score" else 1
        cells = " | ".join(f"{figures[column][measure]:.{digits}f}" for column in columns)
        assert f"| {cells} |" in card


def test_the_training_command_runs_and_extends_a_training(tmp_path):
    from diffusers import DiffusionPipeline

    def train_prior(steps: int) -> Path:
        counts = [f"--{part}-steps={steps}" for part in ("clip", "autoencoder", "diffusion")]
        folders = ["--cache", tmp_path / "cache", "--out", tmp_path / "out"]
        size = ["--pictures", 200, "--threads", 1]
        log = tmp_path / "log"
        result = run("train-prior", *folders, *size, *counts, log=log, timeout=200)
        assert result.code == 0, result.output
        return tmp_path / "out"

    unet = "diffusion/unet/diffusion_pytorch_model.safetensors"
    once = (train_prior(1) / unet).read_bytes()
    twice = (train_prior(2) / unet).read_bytes()
    assert len(once) == len(twice)
    assert once != twice
    clip = OpenCLIPBackbone(f"local-dir:{tmp_path / 'out' / 'clip'}")
    assert clip(torch.zeros(1, 3, 112, 112))[0].shape == (1, 49, 192)
    folder = tmp_path / "out" / "diffusion"
    pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    assert pipeline("a dog", num_inference_steps=1).images[0].size == (112, 112)
    # The alignment head is used in training only.
    assert not any("align" in name for name in pipeline.unet.state_dict())


def test_the_toy_config_matches_the_scale_of_its_clip():
    config = Config.fromfile("configs/pcm_toy.py").model
    model = OpenCLIPBackbone(f"local-dir:{ASSETS / 'clip'}")
    scale = model.clip.logit_scale.exp().item()
    assert scale == pytest.approx(100, rel=1e-3)  # the clamp of OpenAI's models
    assert config.neck.temperature == pytest.approx(1 / scale, rel=1e-3)


def test_the_toy_config_differs_from_that_of_coco_in_sizes_and_paths_only():
    toy, coco = (Config.fromfile(f"configs/{name}.py").model for name in ("pcm_toy", "pcm_coco"))
    sizes = {"patch_dim", "clip_dim", "embed_dims", "num_layers", "num_heads", "ffn_dims"}
    paths = {"concepts", "clip_head", "vocabulary"}
    for part in ("neck", "encoder", "decoder", "loss"):
        keys = (toy[part].keys() | coco[part].keys()) - sizes - paths
        assert {key: toy[part].get(key) for key in keys} == {
            key: coco[part].get(key) for key in keys
        }
    rest = toy.keys() - {"neck", "encoder", "decoder", "loss"} - paths
    assert {key: toy[key] for key in rest} == {key: coco[key] for key in rest}


def test_the_demo_generates_as_the_recipe():
    assert Config.fromfile("configs/recipes/toy.py").generate.guidance == GUIDANCE


def test_a_perfect_judge_finds_what_the_scenes_show():
    tasks = compositions.build_tasks(20)
    assert tasks == compositions.build_tasks(20)
    assert all("orange orange" not in t.prompt for some in tasks.values() for t in some)
    names = list(judge.KINDS)

    def verdict(some, swapped=False, colors=None):
        labels = judge.labels_of([task.scene for task in some])[:, : len(names)]
        columns = torch.zeros_like(labels, dtype=torch.long)
        for row, task in enumerate(some):
            places = [names.index(thing.kind) for thing in task.scene.things]
            columns[row, places[-1 if not swapped else 0]] = 6
        found = [{t.kind: colors or t.color for t in task.scene.things} for task in some]
        return judge.Verdict(labels, found, columns)

    for some in tasks.values():
        assert compositions.share_right(some, verdict(some), 0.5) == 1
        assert compositions.share_right(some, verdict(some), 1.0) == 0
    for name in ("color", "colors of two objects"):
        wrong = verdict(tasks[name], colors="invisible")
        assert compositions.share_right(tasks[name], wrong, 0.5) == 0
    position = tasks["position"]
    assert compositions.share_right(position, verdict(position, swapped=True), 0.5) == 0


def test_the_judge_reads_scores_at_positions():
    network = judge.build_judge().eval()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8)
    with torch.inference_mode():
        scores = network(judge.to_tensor(pixels))
    found = judge.predict(network, pixels, batch=2)
    kinds = scores[:, : len(judge.KINDS)]
    torch.testing.assert_close(found.kinds, kinds.amax((2, 3)).sigmoid(), atol=1e-6, rtol=0)
    for row, column in enumerate(found.columns[:, 0].tolist()):
        assert kinds[row, 0, :, column].max() == kinds[row, 0].max()
    man = next(iter(judge.KINDS.values()))
    assert {colors[man.name] for colors in found.colors} <= {*man.colors}


def test_cached_patches_are_those_of_the_model_and_the_pictures(tmp_path):
    from types import SimpleNamespace

    from pcm_plugin.toyworld.prior.diffusion import encode_patches

    images = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    two = SimpleNamespace(scenes=[0, 1], images=images[:2])
    three = SimpleNamespace(scenes=[0, 1, 2], images=images)
    cache, taught = tmp_path / "patches.safetensors", Path("benchmarks/taught_clip").resolve()
    first = encode_patches(ASSETS / "clip", two, cache)
    written = cache.stat().st_mtime_ns
    assert torch.equal(encode_patches(ASSETS / "clip", two, cache), first)
    assert cache.stat().st_mtime_ns == written
    assert len(encode_patches(ASSETS / "clip", three, cache)) == 3
    assert not torch.equal(encode_patches(taught, two, cache), first)
