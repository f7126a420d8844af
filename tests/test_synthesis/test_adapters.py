"""LoRA weights and textual inversions in generated images."""

from dataclasses import replace

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.image_shards import open_image_shards
from pcm_plugin.synthesis.generate import adapters
from pcm_plugin.synthesis.generate.generate_images import generate_images
from pcm_plugin.synthesis.generate.settings import GenerateSettings
from pcm_plugin.synthesis.generate.text2image import GenerationRequest, ImageGenerator
from tests.builders import build_pipeline

TOKEN = "<mine>"


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = build_pipeline(tmp_path_factory.mktemp("models") / "tiny")
    return GenerateSettings(str(folder), steps=2, guidance=3.0, shard_size=2, format="png")


def load(settings):
    return diffusers.DiffusionPipeline.from_pretrained(settings.pipeline, use_safetensors=True)


@pytest.fixture(scope="module")
def lora(settings, tmp_path_factory):
    """Return a file of random LoRA weights of the U-Net."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    unet = load(settings).unet
    config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"])
    unet.add_adapter(config)
    layers = peft.utils.get_peft_model_state_dict(unet)
    # The second matrix is zero before training.
    layers = {key: torch.randn_like(value) for key, value in layers.items()}
    folder = tmp_path_factory.mktemp("lora")
    diffusers.StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
    return str(folder / "pytorch_lora_weights.safetensors")


@pytest.fixture(scope="module")
def embedding(tmp_path_factory):
    """Return a file with an embedding of two vectors."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("inversion") / "learned.safetensors"
    save_file({TOKEN: 3 * torch.randn(2, 8)}, path)
    return str(path)


def image_of(settings, text="a red dog"):
    [result] = ImageGenerator(settings, "cpu").generate([GenerationRequest("1", text)])
    return np.asarray(result.image).astype(int)


def image_by_hand(pipeline, settings, prompt):
    """Return the image of the pipeline itself."""
    from pcm_plugin.synthesis.generate.text2image import image_seed

    generator = torch.Generator("cpu").manual_seed(image_seed(settings.seed, "1"))
    arguments = {"num_inference_steps": settings.steps, "guidance_scale": settings.guidance}
    output = pipeline(prompt=prompt, generator=generator, output_type="pil", **arguments)
    return np.asarray(output.images[0]).astype(int)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_lora_weights_are_added_with_their_scale(settings, lora, scale):
    pipeline = load(settings)
    pipeline.load_lora_weights(lora, adapter_name="by_hand")
    pipeline.set_adapters("by_hand", scale)
    expected = image_by_hand(pipeline, settings, "a red dog")
    image = image_of(replace(settings, lora=lora, lora_scale=scale))
    # Rounding of the sum of the weights may move a value by one.
    assert np.abs(image - expected).max() <= 1
    assert np.abs(image - image_of(settings)).max() > 1


def test_a_scale_of_zero_leaves_the_images_as_they_are(settings, lora):
    image = image_of(replace(settings, lora=lora, lora_scale=0.0))
    assert np.array_equal(image, image_of(settings))


def test_lora_weights_of_another_model_are_rejected(settings, lora, tmp_path):
    large = build_pipeline(tmp_path / "xl", kind="xl")
    with pytest.raises(UserError, match=r"LoRA weights .* do not fit StableDiffusionXLPipeline"):
        image_of(replace(settings, pipeline=str(large), lora=lora))
    weights = load_file(lora)
    names = [name for name in weights if "down_blocks.0" in name]
    other = weights | {n.replace("blocks.0", "blocks.7"): weights[n].clone() for n in names}
    assert len(other) > len(weights) > len(names) > 0
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=rf"another model: {len(weights)} of {len(other)} matrices"):
        image_of(replace(settings, lora=str(tmp_path / "other.safetensors")))
    save_file({"weight": torch.zeros(1)}, tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="contains no LoRA weights"):
        image_of(replace(settings, lora=str(tmp_path / "none.safetensors")))


def test_the_token_of_a_textual_inversion_is_an_input_of_the_model(settings, embedding):
    pipeline = load(settings)
    pipeline.load_textual_inversion(embedding, token=TOKEN)
    expected = image_by_hand(pipeline, settings, f"a red dog {TOKEN}")
    inversion = replace(settings, textual_inversion=embedding, prompt="{} " + TOKEN)
    assert np.array_equal(image_of(inversion), expected)
    plain = image_of(replace(settings, prompt="{} " + TOKEN))
    assert np.abs(image_of(inversion) - plain).max() > 1


def test_an_unnamed_embedding_has_the_name_of_its_file(settings, embedding, tmp_path):
    path = tmp_path / f"{TOKEN}.safetensors"
    save_file({"emb_params": load_file(embedding)[TOKEN]}, path)
    named = replace(settings, textual_inversion=embedding, prompt="{} " + TOKEN)
    unnamed = replace(named, textual_inversion=str(path))
    assert np.array_equal(image_of(unnamed), image_of(named))


def test_a_textual_inversion_needs_its_token_and_its_text_encoder(settings, embedding, tmp_path):
    with pytest.raises(UserError, match=rf"the prompt does not contain '{TOKEN}'"):
        image_of(replace(settings, textual_inversion=embedding))
    negative = replace(settings, textual_inversion=embedding, negative_prompt=f"blurred, {TOKEN}")
    assert np.abs(image_of(negative) - image_of(settings)).max() > 0
    path = tmp_path / "wide.safetensors"
    save_file({TOKEN: torch.zeros(1, 9)}, path)
    with pytest.raises(UserError, match="does not fit StableDiffusionPipeline"):
        image_of(replace(settings, textual_inversion=str(path), prompt="{} " + TOKEN))
    save_file({TOKEN: torch.zeros(1, 8), "other": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="must contain one embedding"):
        image_of(replace(settings, textual_inversion=str(path), prompt="{} " + TOKEN))


def test_folders_are_identified_by_the_content_of_the_files(settings, lora, tmp_path):
    assert not {"lora", "lora_scale", "textual_inversion"} & settings.as_record().keys()
    copy = tmp_path / "copy.safetensors"
    save_file(load_file(lora), copy)
    captions = tmp_path / "captions.txt"
    captions.write_text("a red dog\na blue car\n")
    with_lora = replace(settings, lora=lora, lora_scale=0.5)
    generate_images(captions, with_lora, tmp_path / "out")
    before = (tmp_path / "out" / "shard-00000.tar").read_bytes()
    record = open_image_shards(tmp_path / "out").manifest["settings"]
    assert record["lora"] == adapters.adapter_id(lora)
    assert record["lora_scale"] == 0.5
    for other in (replace(with_lora, lora_scale=1.0), settings):
        with pytest.raises(UserError, match="lora"):
            generate_images(captions, other, tmp_path / "out")
    assert (tmp_path / "out" / "shard-00000.tar").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": "weights.bin"}, r"lora must be a .safetensors file, got 'weights.bin'"),
        ({"lora": "./missing.safetensors"}, r"no file ./missing.safetensors: lora must be"),
        ({"textual_inversion": "OWNER/NAME"}, r"textual_inversion must be a .safetensors file"),
        ({"textual_inversion": "a.safetensors"}, r"no file a.safetensors: textual_inversion"),
        ({"lora_scale": 0.5}, r"lora_scale=0.5 has no effect without lora"),
        ({"lora_scale": float("nan")}, r"lora_scale must be a finite number, got nan"),
        ({"lora_scale": "much"}, r"lora_scale must be a finite number, got 'much'"),
    ],
)
def test_wrong_settings_are_rejected_before_work_starts(settings, changes, message):
    with pytest.raises((UserError, MissingFileError), match=message):
        replace(settings, **changes)


def test_lora_weights_need_peft(settings, lora, monkeypatch):
    monkeypatch.setattr(adapters.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'pcm-plugin\[lora\]'"):
        replace(settings, lora=lora)
