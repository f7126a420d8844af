"""Captions of tiny models of transformers with random weights."""

import json

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from pcm_plugin.apis import ImageToTextModel
from pcm_plugin.errors import MissingFileError, UserError
from tests.image_text_models import BUILDERS, build_model, llava

SHAPES = ((40, 40), (30, 80), (64, 20))
CHAT = "user <image>describe the image a"
# Class of transformers, text for the processor, whether the generated tokens begin with the prompt.
PLAIN = {
    "git": ("GitForCausalLM", None, False),
    "blip": ("BlipForConditionalGeneration", None, False),
    "vision-encoder-decoder": ("VisionEncoderDecoderModel", None, False),
    "paligemma": ("PaliGemmaForConditionalGeneration", "caption en", True),
    "llava": ("LlavaForConditionalGeneration", CHAT, True),
    "idefics3": ("Idefics3ForConditionalGeneration", CHAT, True),
    "smolvlm": ("SmolVLMForConditionalGeneration", CHAT, True),
    "florence2": ("Florence2ForConditionalGeneration", "<CAPTION>", False),
}


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (*shape, 3), np.uint8)) for shape in SHAPES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a function that builds a model once and returns its folder."""
    root = tmp_path_factory.mktemp("models")

    def folder(kind, seed=0):
        if not hasattr(transformers, PLAIN[kind][0]):
            pytest.skip(f"{PLAIN[kind][0]} is not in transformers {transformers.__version__}")
        if kind == "smolvlm":
            pytest.importorskip("num2words")  # of its processor
        path = root / f"{kind}-{seed}"
        return path if path.exists() else build_model(path, kind, seed)

    return folder


def plain_caption(path, kind, image, text=None, **settings):
    """Caption an image as the documentation of transformers shows it."""
    name, default, repeats = PLAIN[kind]
    text = text or default
    model = getattr(transformers, name).from_pretrained(path).eval()
    settings = {"max_new_tokens": 6, "do_sample": False, **settings}
    if kind == "vision-encoder-decoder":
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        images = transformers.AutoImageProcessor.from_pretrained(path)
        inputs = images(image, return_tensors="pt")
    else:
        processor = transformers.AutoProcessor.from_pretrained(path)
        tokenizer = processor.tokenizer
        texts = {} if text is None else {"text": [text]}
        inputs = processor(images=[image], **texts, return_tensors="pt")
    with torch.no_grad():
        tokens = model.generate(**inputs, **settings)[0]
    start = inputs["input_ids"].shape[1] if repeats else 0
    return " ".join(tokenizer.decode(tokens[start:], skip_special_tokens=True).split())


@pytest.mark.parametrize("kind", BUILDERS)
def test_captions_are_those_of_transformers(kind, folder, images):
    """Images of different shapes in one batch have the captions that each of them has alone."""
    found = set()
    for seed in range(2):
        path = folder(kind, seed)
        model = ImageToTextModel(str(path), BUILDERS[kind][1])
        model.load()
        captions = model.caption(images, max_new_tokens=6)
        assert captions == [plain_caption(path, kind, image) for image in images]
        found.update(captions)
    assert len(found) > 1


@pytest.mark.parametrize("kind", ["git", "blip"])
def test_a_prompt_is_the_beginning_of_the_caption(kind, folder, images):
    changed = []
    for seed in range(3):
        path = folder(kind, seed)
        model, without = ImageToTextModel(str(path), "a dog"), ImageToTextModel(str(path))
        model.load()
        without.load()
        processor = transformers.AutoProcessor.from_pretrained(path)
        pixels = processor(images=images, return_tensors="pt").pixel_values
        ids = processor.tokenizer.convert_tokens_to_ids(["[CLS]", "a", "dog"])
        # BLIP's `generate` drops the last token.
        ids = torch.tensor([[*ids, 2] if kind == "blip" else ids] * len(images))
        plain = getattr(transformers, PLAIN[kind][0]).from_pretrained(path).eval()
        tokens = plain.generate(
            pixel_values=pixels, input_ids=ids, do_sample=False, max_new_tokens=6
        )
        texts = [processor.tokenizer.decode(row, skip_special_tokens=True) for row in tokens]
        captions = model.caption(images, None, 6)
        assert [f"a dog {caption}".strip() for caption in captions] == texts
        changed.append(captions != without.caption(images, None, 6))
    assert any(changed)


def test_number_of_beams_and_tokens(folder, images):
    found = []
    for seed in range(4):
        path = folder("git", seed)
        model = ImageToTextModel(str(path))
        model.load()
        beams = model.caption(images, num_beams=4, max_new_tokens=5)
        expected = [
            plain_caption(path, "git", image, num_beams=4, max_new_tokens=5) for image in images
        ]
        assert beams == expected
        assert max(len(caption.split()) for caption in beams) <= 5
        found.append(beams == model.caption(images, num_beams=1, max_new_tokens=5))
    assert not all(found)


def test_weights_are_loaded_in_a_precision_and_released(folder, images):
    model = ImageToTextModel(str(folder("blip")))
    with pytest.raises(RuntimeError, match=r"call `load\(\)` first"):
        model.caption(images)
    model.load(dtype="bfloat16")
    assert model._model.dtype == torch.bfloat16
    assert len(model.caption(images, max_new_tokens=3)) == 3
    model.unload()
    with pytest.raises(RuntimeError, match="not loaded"):
        model.caption(images)


def error_of(name, prompt=None, kind=UserError):
    with pytest.raises(kind) as caught:
        ImageToTextModel(str(name), prompt)
    return str(caught.value)


def test_prompts_that_do_not_fit_the_model(folder):
    path = folder("paligemma")
    assert error_of(path) == (
        f"{path} (paligemma) needs a prompt, such as 'caption en': pass --prompt {path} "
        "'caption en'"
    )
    path = folder("llava")
    assert "needs a prompt, such as 'Describe the image in one short sentence.'" in error_of(path)
    assert error_of(path, " ") == f"the prompt of {path} must not be empty"
    path = folder("vision-encoder-decoder")
    assert error_of(path, "a dog") == (
        f"{path} (vision-encoder-decoder) takes no prompt, got 'a dog': leave it out"
    )


def test_a_model_without_chat_template_needs_its_image_token(tmp_path, images):
    (tmp_path / "plain").mkdir()
    path = tmp_path / "plain"
    torch.manual_seed(0)
    llava(path, chat_template=None).save_pretrained(path)
    message = error_of(path, "describe the image")  # in some versions, of the processor
    for part in ("the prompt", "'describe the image'", "<image>"):
        assert part in message
    model = ImageToTextModel(str(path), CHAT)
    model.load()
    expected = [plain_caption(path, "llava", image) for image in images]
    assert model.caption(images, max_new_tokens=6) == expected


def test_folders_that_are_no_image_to_text_models(folder, tmp_path):
    missing = tmp_path / "missing"
    message = error_of(missing, kind=MissingFileError)
    assert message == (
        f"no folder {missing}: a model must be a local folder, or a name on the hub as OWNER/NAME"
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    message = error_of(empty, kind=MissingFileError)
    assert message == f"{empty} is not the folder of a model: it has no config.json"
    path = tmp_path / "text"
    config = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=20)
    transformers.GPT2LMHeadModel(config).save_pretrained(path)
    assert error_of(path) == (
        f"{path} is not an image-to-text model: transformers {transformers.__version__} has none "
        "of the type 'gpt2'"
    )


def test_no_code_of_a_folder_is_run(tmp_path):
    """A model type that transformers does not have, with its own code."""
    path = tmp_path / "own_code"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"")
    code = f"open({str(tmp_path / 'was_run')!r}, 'w')\n"
    code += "from transformers import PretrainedConfig\nclass Own(PretrainedConfig): pass\n"
    (path / "own.py").write_text(code)
    auto_map = {"AutoConfig": "own.Own"}
    (path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": auto_map}))
    assert "code from its folder, which is not executed" in error_of(path)
    assert not (tmp_path / "was_run").exists()


def test_incomplete_folders(tmp_path):
    path = build_model(tmp_path / "git", "git")
    weights = path / "model.safetensors"
    tensors = load_file(weights)
    name = sorted(name for name in tensors if "pooler" not in name)[0]
    save_file({k: v for k, v in tensors.items() if k != name}, weights, {"format": "pt"})
    model = ImageToTextModel(str(path))
    with pytest.raises(UserError, match=f"lack {name} and 0 more"):
        model.load()
    weights.write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be read: SafetensorError"):
        model.load()
    weights.rename(path / "pytorch_model.bin")
    message = error_of(path, kind=MissingFileError)
    assert message == f"{path} has no weights (.safetensors)"
    save_file(tensors, weights, {"format": "pt"})
    for file in path.glob("*processor*.json"):
        file.unlink()
    assert error_of(path).startswith(f"the processor of {path} cannot be loaded: ")
