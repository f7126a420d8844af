"""Image tower that is built without open_clip: equal features, and configs that need open_clip."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from pcm_plugin.errors import UserError
from pcm_plugin.models.backbones import OpenCLIPBackbone
from pcm_plugin.models.backbones.local_vit import LocalPreprocess, load_local_vit
from pcm_plugin.toyworld import ASSETS
from tests.builders import build_clip

CLIP = ASSETS / "clip"
SIZES = ((112, 112), (50, 300), (333, 112), (111, 113))
WEIGHTS = "open_clip_model.safetensors"
SHORTEST = {"interpolation": "bicubic", "resize_mode": "shortest"}


@pytest.fixture(scope="module", params=["shipped", "token", "quick_gelu"])
def folder(request, tmp_path_factory):
    """Return the folder of a CLIP: average pooling, class token, QuickGELU."""
    if request.param == "shipped":
        return CLIP
    folder = tmp_path_factory.mktemp("clips") / request.param
    build_clip(folder)
    file = folder / "open_clip_config.json"
    config = json.loads(file.read_text())
    config["model_cfg"]["quick_gelu"] = request.param == "quick_gelu"
    mean_and_std = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
    config["preprocess_cfg"] = {**mean_and_std, **SHORTEST}
    file.write_text(json.dumps(config))
    return folder


def test_features_equal_those_of_open_clip_bit_by_bit(folder):
    deferred = OpenCLIPBackbone(f"local-dir:{folder}", defer_text=True)
    full = OpenCLIPBackbone(f"local-dir:{folder}")
    generator = np.random.default_rng(0)
    for size in SIZES:
        image = Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8))
        pixels = deferred.preprocess(image)
        assert torch.equal(pixels, full.preprocess(image))
        features = zip(deferred(pixels[None]), full(pixels[None]), strict=True)
        assert all(torch.equal(*pair) for pair in features)
    gray = Image.new("L", (90, 70), 99)
    assert torch.equal(deferred.preprocess(gray), full.preprocess(gray))
    heads = deferred.clip_head(), full.clip_head()
    assert all(torch.equal(heads[0][key], heads[1][key]) for key in heads[1])
    for name in ("grid", "image_size", "image_mean", "image_std", "ln_post_eps", "num_patches"):
        assert getattr(deferred, name) == getattr(full, name), name


def test_texts_load_open_clip_later_with_the_same_embeddings(folder):
    deferred = OpenCLIPBackbone(f"local-dir:{folder}", defer_text=True).double()
    full = OpenCLIPBackbone(f"local-dir:{folder}").double()
    texts = ["a ball", "two red cars"]
    assert torch.equal(deferred.encode_text(texts), full.encode_text(texts))
    images = torch.randn(2, 3, *full.image_size, dtype=torch.float64)
    assert torch.equal(deferred(images)[0], full(images)[0])


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("vision_cfg", {"timm_model_name": "vit_tiny_patch16_224"}),
        ("vision_cfg", {"attentional_pool": True}),
        ("vision_cfg", {"layers": [1, 1, 1, 1]}),
        ("vision_cfg", {"width": 64}),
        ("vision_cfg", {"head_width": 33}),
        ("vision_cfg", {"patch_size": 0}),
        ("vision_cfg", {"no_ln_pre": True}),
        ("vision_cfg", {"patch_dropout": 0.5}),
        ("vision_cfg", {"pos_embed_type": "sin_cos_2d"}),
        ("vision_cfg", {"final_ln_after_pool": True}),
        ("vision_cfg", {"norm_kwargs": {"eps": 1e-3}}),
        ("preprocess_cfg", {"resize_mode": "longest"}),
        ("preprocess_cfg", {"interpolation": "bilinear"}),
    ],
)
def test_other_configs_are_left_to_open_clip(tmp_path, part, change):
    config = json.loads((CLIP / "open_clip_config.json").read_text())
    (config if part in config else config["model_cfg"])[part].update(change)
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    shutil.copy(CLIP / WEIGHTS, tmp_path)
    assert load_local_vit(tmp_path) is None


@pytest.mark.parametrize("change", [{"preprocess_cfg": None}, {"model_cfg": []}])
def test_configs_without_a_part_are_left_to_open_clip(tmp_path, change):
    config = json.loads((CLIP / "open_clip_config.json").read_text())
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config | change))
    shutil.copy(CLIP / WEIGHTS, tmp_path)
    assert load_local_vit(tmp_path) is None


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I", "F", "I;16"])
@pytest.mark.parametrize("size", [(200, 90), (3, 5), (1, 300)])
def test_images_of_all_modes_are_preprocessed_as_by_open_clip(mode, size):
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8))
    image = image.convert("I").convert(mode) if mode == "I;16" else image.convert(mode)
    for resize_mode in ("squash", "shortest"):
        config = dict(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), resize_mode=resize_mode)
        config["interpolation"] = "bicubic"
        expected = image_transform_v2(PreprocessCfg(size=(112, 112), **config), is_train=False)
        pixels = LocalPreprocess(config, (112, 112))(image)
        assert torch.equal(pixels, expected(image))


def test_damaged_folders_are_left_to_open_clip(tmp_path):
    assert load_local_vit(tmp_path / "missing") is None
    shutil.copy(CLIP / "open_clip_config.json", tmp_path)
    assert load_local_vit(tmp_path) is None
    (tmp_path / WEIGHTS).write_bytes(b"x")
    assert load_local_vit(tmp_path) is None


def test_damaged_weights_and_weights_of_another_config_are_reported(tmp_path):
    config = json.loads((CLIP / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["layers"] = 3
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    weights = (CLIP / WEIGHTS).read_bytes()
    for content, problem in (
        (weights, "Unexpected key"),
        (
            weights[:999_999],
            "([Ii]ncomplete metadata, file|MetadataIncomplete)",
        ),
    ):
        (tmp_path / WEIGHTS).write_bytes(content)
        with pytest.raises(UserError, match=f"weights that fit it, got `local-dir:.*: .*{problem}"):
            OpenCLIPBackbone(f"local-dir:{tmp_path}", defer_text=True)


def test_the_deferred_backbone_imports_neither_open_clip_nor_torchvision():
    code = (
        "import sys, torch\n"
        "from pcm_plugin.models.backbones import OpenCLIPBackbone\n"
        f"clip = OpenCLIPBackbone('local-dir:{CLIP}', defer_text=True)\n"
        "clip(torch.zeros(1, 3, *clip.image_size))\n"
        "found = sys.modules.keys() & {'open_clip', 'torchvision', 'timm'}\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
