"""Tiny image-to-text models of transformers with random weights, saved as folders."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from packaging.version import Version
from tokenizers import Tokenizer, models, pre_tokenizers

IS_5 = Version(transformers.__version__).major >= 5

WORDS = [
    *("a", "dog", "cat", "runs", "on", "the", "grass", "red", "car", "two", "people", "sit"),
    *("describe", "image", "caption", "en"),
]
BERT = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS]
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
SIDE, PATCH, WIDTH = 32, 16, 16
SMALL = dict(
    hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=1, num_attention_heads=2
)
VISION = dict(image_size=SIDE, patch_size=PATCH, **SMALL)
CHAT = (
    "{% for m in messages %}{{ m['role'] }} {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %} a{% endif %}"
)


def bert_tokenizer(folder: Path) -> Any:
    """Return a tokenizer of BERT for the words."""
    (folder / "vocab.txt").write_text("\n".join(BERT) + "\n")
    (folder / "tokenizer_config.json").write_text("{}")
    return transformers.BertTokenizerFast.from_pretrained(folder)


def word_tokenizer(
    extra: Sequence[str] = (), kind: str = "PreTrainedTokenizerFast", **settings: Any
) -> Any:
    """Return a tokenizer with the tokens of LLaMA and the words."""
    vocab = {token: i for i, token in enumerate([*SPECIAL, *WORDS, *extra])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    pad, bos, eos, unk = SPECIAL
    return getattr(transformers, kind)(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        unk_token=unk,
        additional_special_tokens=list(extra),
        model_input_names=["input_ids", "attention_mask"],
        **settings,
    )


def size() -> dict[str, int]:
    return {"height": SIDE, "width": SIDE}


def text_settings(vocab_size: int) -> dict[str, Any]:
    return dict(
        vocab_size=vocab_size,
        **SMALL,
        num_key_value_heads=2,
        head_dim=WIDTH // 2,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def git(folder: Path) -> Any:
    tokenizer = bert_tokenizer(folder)
    images = transformers.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=size())
    transformers.GitProcessor(images, tokenizer).save_pretrained(folder)
    config = transformers.GitConfig(
        vision_config=VISION,
        vocab_size=len(BERT),
        **SMALL,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return transformers.GitForCausalLM(config)


def blip(folder: Path) -> Any:
    tokenizer = bert_tokenizer(folder)
    images = transformers.BlipImageProcessor(size=size())
    transformers.BlipProcessor(images, tokenizer).save_pretrained(folder)
    text = dict(
        vocab_size=len(BERT),
        **SMALL,
        encoder_hidden_size=WIDTH,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        sep_token_id=2,
    )
    config = transformers.BlipConfig(text_config=text, vision_config=VISION)
    return transformers.BlipForConditionalGeneration(config)


def vit_gpt2(folder: Path) -> Any:
    word_tokenizer().save_pretrained(folder)
    transformers.ViTImageProcessor(size=size()).save_pretrained(folder)
    text = transformers.GPT2Config(
        vocab_size=len(SPECIAL) + len(WORDS),
        n_embd=WIDTH,
        n_layer=1,
        n_head=2,
        n_positions=64,
        bos_token_id=1,
        eos_token_id=2,
        is_decoder=True,
        add_cross_attention=True,
    )
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.ViTConfig(**VISION), text
    )
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 1, 0, 2
    model = transformers.VisionEncoderDecoderModel(config)
    model.generation_config.update(decoder_start_token_id=1, pad_token_id=0, eos_token_id=2)
    return model


def paligemma(folder: Path) -> Any:
    # Before transformers 5 the processor requires this class, in which the tokens are fixed since.
    kind = "PreTrainedTokenizerFast" if IS_5 else "GemmaTokenizerFast"
    tokenizer = word_tokenizer(["<image>"], kind)
    images = transformers.SiglipImageProcessor(size=size())
    images.image_seq_length = (SIDE // PATCH) ** 2
    transformers.PaliGemmaProcessor(images, tokenizer).save_pretrained(folder)
    config = transformers.PaliGemmaConfig(
        vision_config=dict(model_type="siglip_vision_model", projection_dim=WIDTH, **VISION),
        text_config=dict(model_type="gemma", **text_settings(len(tokenizer))),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=WIDTH,
        hidden_size=WIDTH,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return transformers.PaliGemmaForConditionalGeneration(config)


def llava(folder: Path, chat_template: str | None = CHAT) -> Any:
    tokenizer = word_tokenizer(["<image>"])
    images = transformers.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=size())
    transformers.LlavaProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template,
    ).save_pretrained(folder)
    config = transformers.LlavaConfig(
        vision_config=dict(model_type="clip_vision_model", projection_dim=WIDTH, **VISION),
        text_config=dict(model_type="llama", **text_settings(len(tokenizer))),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        image_seq_length=(SIDE // PATCH) ** 2,
    )
    return transformers.LlavaForConditionalGeneration(config)


def idefics3(folder: Path) -> Any:
    return split_images(folder, "Idefics3")


def smolvlm(folder: Path) -> Any:
    video = {"video_size": {"longest_edge": SIDE}, "max_frames": 2, "fps": 1}
    # A class of its own since transformers 4.52.
    has_class = hasattr(transformers, "SmolVLMVideoProcessor")
    processor = {"video_processor": transformers.SmolVLMVideoProcessor()} if has_class else {}
    return split_images(folder, "SmolVLM", dict(video_sampling=video), processor)


def split_images(
    folder: Path, name: str, images: Mapping[str, Any] = {}, processor: Mapping[str, Any] = {}
) -> Any:
    """Write a model that splits an image into parts whose number depends on its shape."""
    extra = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    extra += [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    tokenizer = word_tokenizer([*extra, "\n", "\n\n"])
    image_processor = getattr(transformers, f"{name}ImageProcessor")(
        size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}, **images
    )
    getattr(transformers, f"{name}Processor")(
        image_processor, tokenizer, **processor, image_seq_len=1, chat_template=CHAT
    ).save_pretrained(folder)
    config = getattr(transformers, f"{name}Config")(
        vision_config=VISION,
        text_config=dict(model_type="llama", **text_settings(len(tokenizer))),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=0,
    )
    return getattr(transformers, f"{name}ForConditionalGeneration")(config)


def florence2(folder: Path) -> Any:
    extra = ["<image>", "<loc_0>", "What", "does", "describe?"]
    tokenizer = word_tokenizer(extra, extra_special_tokens={"image_token": "<image>"})
    images = transformers.CLIPImageProcessor(size=size(), do_center_crop=False)
    images.image_seq_length = 5
    transformers.Florence2Processor(images, tokenizer).save_pretrained(folder)
    text = transformers.BartConfig(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
    )
    vision = dict(
        depths=[1, 1],
        patch_size=[7, 3],
        patch_stride=[4, 4],
        patch_padding=[3, 1],
        patch_prenorm=[False, True],
        embed_dim=[8, 16],
        num_heads=[2, 2],
        num_groups=[2, 2],
        window_size=4,
        projection_dim=WIDTH,
        max_position_embeddings=8,
        max_temporal_embeddings=4,
    )
    config = transformers.Florence2Config(
        text_config=text.to_dict(),
        vision_config=vision,
        image_token_id=tokenizer.image_token_id,
        is_encoder_decoder=True,
    )
    return transformers.Florence2ForConditionalGeneration(config)


BUILDERS: dict[str, tuple[Callable[[Path], Any], str | None]] = {
    "git": (git, None),
    "blip": (blip, None),
    "vision-encoder-decoder": (vit_gpt2, None),
    "paligemma": (paligemma, "caption en"),
    "llava": (llava, "describe the image"),
    "idefics3": (idefics3, "describe the image"),
    "smolvlm": (smolvlm, "describe the image"),
    "florence2": (florence2, "<CAPTION>"),
}
"""Builder of a model by type, and the prompt that it needs."""


def build_model(folder: Path, kind: str, seed: int = 0) -> Path:
    """Write a model with random weights and its processor to a folder, and return the folder."""
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    model = BUILDERS[kind][0](folder)
    with torch.no_grad():  # with the usual small weights, captions hardly depend on the image
        for parameter in model.parameters():
            parameter += 0.5 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return folder
