"""Stable Diffusion 1.5 and SDXL-Turbo at their real sizes, with random weights.

Nothing is downloaded: the configs are those of the published pipelines, and the tokenizer is that
of CLIP with open_clip's vocabulary. There is no safety checker, since with random weights it could
flag any image.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import diffusers
import open_clip
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

_SPECIAL_TOKENS = 49_406
"""Index of the start token; that of the end token is the next."""
NOISE = dict(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000
)
UNETS: dict[str, dict[str, Any]] = {
    "sd15": dict(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        down_block_types=(*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
        attention_head_dim=8,
        cross_attention_dim=768,
    ),
    "sdxl_turbo": dict(
        sample_size=64,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * 2),
        up_block_types=(*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"),
        attention_head_dim=(5, 10, 20),
        transformer_layers_per_block=(1, 2, 10),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    ),
}
SMALL: dict[str, dict[str, Any]] = {
    "sd15": dict(sample_size=8, block_out_channels=(32, 32, 64, 64), attention_head_dim=4),
    "sdxl_turbo": dict(
        sample_size=8,
        block_out_channels=(32, 32, 64),
        attention_head_dim=(2, 2, 4),
        transformer_layers_per_block=(1, 1, 1),
    ),
}
"""Settings of the small UNets of a dry run."""


def build_tokenizer(**settings: Any) -> CLIPTokenizer:
    """Build CLIP's tokenizer of 49,408 tokens in the format of Stable Diffusion."""
    known = open_clip.tokenizer.SimpleTokenizer()
    marks = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    # open_clip has other names for these two tokens, the last of the vocabulary.
    vocabulary = {token: index for token, index in known.encoder.items() if index < _SPECIAL_TOKENS}
    vocabulary |= {mark: _SPECIAL_TOKENS + i for i, mark in enumerate(marks.values())}
    merges = sorted(known.bpe_ranks, key=known.bpe_ranks.__getitem__)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "vocab.json").write_text(json.dumps(vocabulary))
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n")
        names = {**marks, "unk_token": marks["eos_token"], "pad_token": marks["eos_token"]}
        settings = {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", **names, **settings}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        return CLIPTokenizer.from_pretrained(folder)


def text_config(large: bool = False, small: bool = False) -> CLIPTextConfig:
    """Return the config of a text encoder.

    Args:
        large: Whether it is the second encoder of SDXL, OpenCLIP's ViT-bigG/14, and not CLIP's
            ViT-L/14.
        small: Whether to use only two layers.
    """
    width, layers, heads, act = (1280, 32, 20, "gelu") if large else (768, 12, 12, "quick_gelu")
    return CLIPTextConfig(
        vocab_size=_SPECIAL_TOKENS + 2,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=2 if small else layers,
        num_attention_heads=heads,
        max_position_embeddings=77,
        hidden_act=act,
        projection_dim=width,
        bos_token_id=_SPECIAL_TOKENS,
        eos_token_id=_SPECIAL_TOKENS + 1,
        pad_token_id=0 if large else _SPECIAL_TOKENS + 1,
    )


def build_pipeline(
    kind: str, device: str, dtype: torch.dtype = torch.float16, small: bool = False
) -> Any:
    """Build a pipeline with random weights.

    Args:
        kind: ``"sd15"`` or ``"sdxl_turbo"``.
        device: Device on which the weights are created; a GPU needs a fraction of the time.
        dtype: Dtype of the weights.
        small: Whether to use the small UNet, VAE and text encoders of a dry run.
    """
    large = kind == "sdxl_turbo"
    torch.manual_seed(0)
    with torch.device(device):
        unet_settings = {**UNETS[kind], **(SMALL[kind] if small else {})}
        unet = diffusers.UNet2DConditionModel(in_channels=4, out_channels=4, **unet_settings)
        vae = diffusers.AutoencoderKL(
            block_out_channels=(32, 32, 32, 32) if small else (128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            sample_size=1024 if large else 512,
            scaling_factor=0.13025 if large else 0.18215,
            # As in SDXL, whose published weights overflow in float16.
            force_upcast=large,
        )
        text_encoder = CLIPTextModel(text_config(small=small))
        parts = dict(vae=vae, text_encoder=text_encoder, tokenizer=build_tokenizer(), unet=unet)
        if large:
            second = CLIPTextModelWithProjection(text_config(large=True, small=small))
            parts |= dict(text_encoder_2=second, tokenizer_2=build_tokenizer(pad_token="!"))
    pipeline: Any
    if large:
        pipeline = diffusers.StableDiffusionXLPipeline(
            **parts,
            scheduler=diffusers.EulerAncestralDiscreteScheduler(
                **NOISE, timestep_spacing="trailing"
            ),
            add_watermarker=False,
        )
    else:
        pipeline = diffusers.StableDiffusionPipeline(
            **parts,
            scheduler=diffusers.PNDMScheduler(
                **NOISE, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    for module in pipeline.components.values():
        if isinstance(module, torch.nn.Module):
            module.eval().requires_grad_(False)
    return pipeline.to(dtype)
