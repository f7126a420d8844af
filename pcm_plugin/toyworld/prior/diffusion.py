"""The toy world's text-to-image model: a Stable Diffusion pipeline of tiny parts.

An autoencoder (112 px -> 14 x 14 latents), then a U-Net and a CLIP text encoder trained together
to predict the velocity of the diffusion (Salimans and Ho, ICLR 2022), weighted by min-SNR-5 (Hang
et al., ICCV 2023), with the caption left out one time in ten for guidance.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from .tokenizer import CONTEXT_LENGTH
from .training import train
from .web import Web

_VAE_BATCH, _VAE_CROP, _BATCH = 24, 56, 64
LATENTS = 8


def _pixels(web: Web, rows: np.ndarray) -> Tensor:
    """Float (B, 3, 112, 112) in [-1, 1]."""
    return torch.from_numpy(web.images[rows]).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def build_autoencoder() -> Any:
    """Three halvings, few channels, no attention."""
    from diffusers import AutoencoderKL

    down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=down,
        up_block_types=up,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        latent_channels=LATENTS,
        norm_num_groups=8,
        sample_size=112,
        mid_block_add_attention=False,
    )


def train_autoencoder(web: Web, checkpoint: Path, steps: int) -> Any:
    """L1 on pixels and on their differences, which keeps edges, with a faint KL.

    Trained on crops: it has no attention, so a crop teaches what a picture would, at a quarter of
    the cost.
    """
    torch.manual_seed(0)
    vae = build_autoencoder().to(memory_format=torch.channels_last)

    def edges(x: Tensor) -> tuple[Tensor, Tensor]:
        return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng(step)
        rows = np.sort(rng.choice(len(web.scenes), _VAE_BATCH, False))
        top, left = rng.integers(0, 112 - _VAE_CROP + 1, 2)
        x = _pixels(web, rows)[..., top : top + _VAE_CROP, left : left + _VAE_CROP]
        x = x.contiguous(memory_format=torch.channels_last)
        posterior = vae.encode(x).latent_dist
        y = vae.decode(posterior.sample()).sample
        loss = F.l1_loss(y, x) + 1e-6 * posterior.kl().mean()
        return loss + sum(F.l1_loss(a, b) for a, b in zip(edges(y), edges(x), strict=True))

    return train(vae, loss_at, checkpoint, steps, lr=1.5e-3, weight_decay=0, ema_decay=0.995)


@torch.inference_mode()
def encode_web(vae: Any, web: Web, path: Path) -> Tensor:
    """Latents of the whole web, float16 (n, 8, 14, 14), not scaled; cached at ``path``."""
    from safetensors.torch import load_file, save_file

    from .training import write_atomically

    if path.exists():
        return load_file(path)["latents"]
    parts = []
    for start in tqdm(range(0, len(web.scenes), 64), desc="latents", mininterval=5):
        rows = np.arange(start, min(start + 64, len(web.scenes)))
        parts.append(vae.encode(_pixels(web, rows)).latent_dist.mode().half())
    latents = torch.cat(parts).contiguous()
    write_atomically(path, lambda p: save_file({"latents": latents}, p))
    return latents


class TextToLatents(nn.Module):
    """U-Net and text encoder, trained together."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        from diffusers import UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        self.text: Any = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=vocab_size,
                hidden_size=128,
                intermediate_size=512,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=CONTEXT_LENGTH,
                projection_dim=128,
                bos_token_id=1,
                eos_token_id=vocab_size - 1,
                pad_token_id=0,
            )
        )
        self.unet: Any = UNet2DConditionModel(
            sample_size=14,
            in_channels=LATENTS,
            out_channels=LATENTS,
            layers_per_block=1,
            block_out_channels=(64, 128),
            attention_head_dim=4,
            cross_attention_dim=128,
            norm_num_groups=16,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        )


def scheduler_config() -> dict:
    """The diffusion's noise schedule, in diffusers' words."""
    return {
        "num_train_timesteps": 1000,
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": "v_prediction",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "timestep_spacing": "trailing",
    }


def train_diffusion(
    web: Web, latents: Tensor, tokenizer, checkpoint: Path, vocab_size: int, steps: int
) -> tuple[TextToLatents, float]:
    """Returns the averaged networks and the latents' scaling factor."""
    from diffusers import DDIMScheduler

    torch.manual_seed(0)
    model = TextToLatents(vocab_size)
    model.unet.to(memory_format=torch.channels_last)
    scale = 1 / latents[:4096].float().std().item()
    schedule: Any = DDIMScheduler(**scheduler_config())
    signal = schedule.alphas_cumprod
    captions = [tokenizer(c, padding="max_length", truncation=True).input_ids for c in web.captions]
    ids = torch.tensor(captions)
    empty = torch.tensor(tokenizer("", padding="max_length").input_ids)

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng(step)
        rows = torch.from_numpy(rng.integers(0, len(latents), _BATCH))
        x = latents[rows].float() * scale
        text = ids[rows, torch.from_numpy(rng.integers(0, ids.shape[1], _BATCH))]
        text = torch.where(torch.rand(_BATCH, 1) < 0.1, empty, text)
        t = torch.randint(0, len(signal), (_BATCH,))
        a = signal[t].view(-1, 1, 1, 1)
        noise = torch.randn_like(x)
        noisy = a.sqrt() * x + (1 - a).sqrt() * noise
        target = a.sqrt() * noise - (1 - a).sqrt() * x
        context = model.text(text).last_hidden_state
        velocity = model.unet(noisy, t, encoder_hidden_states=context).sample
        snr = a / (1 - a)
        weight = snr.clamp(max=5) / (snr + 1)
        return (weight * (velocity - target).square().mean((1, 2, 3), keepdim=True)).mean() / 0.4

    return train(
        model, loss_at, checkpoint, steps, lr=8e-4, weight_decay=0.01, ema_decay=0.9985
    ), scale


def export(vae: Any, model: TextToLatents, scale: float, tokenizer, folder: Path) -> None:
    """Write a ``StableDiffusionPipeline`` in half precision, in diffusers' folder format."""
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    vae.register_to_config(scaling_factor=scale)
    scheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )
    pipeline: Any = StableDiffusionPipeline(
        vae=vae,
        text_encoder=model.text,
        tokenizer=tokenizer,
        unet=model.unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)
