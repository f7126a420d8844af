"""The toy world's text-to-image model: a Stable Diffusion pipeline of tiny parts.

An autoencoder (112 px -> 14 x 14 latents), then a U-Net and a CLIP text encoder trained together
to predict the velocity of the diffusion (Salimans and Ho, ICLR 2022), weighted by min-SNR-5 (Hang
et al., ICCV 2023), with the caption left out one time in ten for guidance. What the U-Net holds at
its coarsest is drawn towards CLIP's patch features of the clean picture, on the same 7 x 7 grid:
representation alignment (Yu et al., ICLR 2025), by which a diffusion model learns sooner what
things there are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from pcm_plugin.formats.tensor_file import write_tensors
from pcm_plugin.models.backbones import OpenCLIPBackbone
from pcm_plugin.models.functional.patch_affinity import project_patches
from pcm_plugin.toyworld.prior.clip import normalise
from pcm_plugin.toyworld.prior.tokenizer import CONTEXT_LENGTH
from pcm_plugin.toyworld.prior.training import train
from pcm_plugin.toyworld.prior.web import Web, to_tensor

_VAE_BATCH, _VAE_CROP, _BATCH = 16, 40, 64
_ALIGN = 0.25  # weight of the alignment
LATENTS = 8


def build_autoencoder() -> Any:
    """Three halvings in residual blocks without norms: quick on a CPU, in training too."""
    from diffusers import AutoencoderTiny

    wide, deep = (32,) * 4, (0, 1, 2, 2)
    return AutoencoderTiny(
        encoder_block_out_channels=wide,
        decoder_block_out_channels=wide,
        num_encoder_blocks=deep,
        num_decoder_blocks=deep[::-1],
        latent_channels=LATENTS,
    )


@torch.no_grad()
def _carry_colours(vae: Any) -> None:
    """Begin with an autoencoder that blurs: three latents carry the mean colour of 8 x 8 pixels.

    Otherwise most of so short a training is spent on finding that colours have to be passed on.
    """
    for part in (vae.encoder, vae.decoder):
        convolutions = [m for m in part.layers if isinstance(m, nn.Conv2d)]
        for conv in convolutions:
            conv.weight[:3] = 0
            for c in range(3):
                if conv.stride[0] == 2:
                    conv.weight[c, c, 1:, 1:] = 0.25
                else:
                    conv.weight[c, c, 1, 1] = 1
            if conv.bias is not None:
                conv.bias[:3] = 0
        for block in part.layers:
            if hasattr(block, "fuse"):
                block.conv[-1].weight.mul_(0.3)
                block.conv[-1].weight[:3] = 0
                block.conv[-1].bias[:3] = 0
    into, back, out = vae.encoder.layers[-1], vae.decoder.layers[0], vae.decoder.layers[-1]
    # colours in [0, 1] to latents in [-2, 2] and back
    into.weight[:3] *= 4
    into.bias[:3] = -2
    back.weight[:3] *= 0.25
    back.bias[:3] = 0.5
    out.weight[:, 3:] *= 0.1


def train_autoencoder(web: Web, checkpoint: Path, steps: int, start: Path | None = None) -> Any:
    """Squared and absolute error of pixels, and that of their differences, which keeps edges.

    Latents get a little noise, so that what the diffusion leaves does no harm, and are held near
    nought by their square. Trained on crops: it has no attention, so a crop teaches what a picture
    would, and many small steps teach more than few large ones. Without a checkpoint it begins with
    the weights in the pipeline's folder ``start``, if given.
    """
    torch.manual_seed(0)
    if start:
        vae = type(build_autoencoder()).from_pretrained(start / "vae", torch_dtype=torch.float32)
    else:
        vae = build_autoencoder()
        _carry_colours(vae)
    vae.to(memory_format=torch.channels_last)

    def loss_at(step: int) -> Tensor:
        rng = np.random.default_rng(step)
        rows = rng.integers(0, len(web.scenes), _VAE_BATCH)
        top, left = rng.integers(0, 112 - _VAE_CROP + 1, 2)
        x = to_tensor(web.images[rows])[..., top : top + _VAE_CROP, left : left + _VAE_CROP]
        x = x.contiguous(memory_format=torch.channels_last)
        z = vae.encode(x).latents
        y = vae.decode(z + 0.05 * torch.randn_like(z)).sample
        loss = 4 * F.mse_loss(y, x) + F.l1_loss(y, x) + 1e-3 * z.square().mean()
        return loss + sum(F.l1_loss(y.diff(dim=d), x.diff(dim=d)) for d in (-1, -2))

    return train(vae, loss_at, checkpoint, steps, lr=1e-3, weight_decay=0, save_every=500)


@torch.inference_mode()
def _encoded(encode: Callable[[Tensor], Tensor], web: Web, path: Path) -> Tensor:
    """What ``encode`` makes of all pictures in [-1, 1], in float16; cached at ``path``."""
    if path.exists():
        return load_file(path)[path.stem]
    parts = []
    for start in tqdm(range(0, len(web.scenes), 64), desc=path.stem, mininterval=5):
        parts.append(encode(to_tensor(web.images[start : start + 64])).half())
    encoded = torch.cat(parts)
    write_tensors(path, {path.stem: encoded})
    return encoded


def encode_web(vae: Any, web: Web, path: Path) -> Tensor:
    """Latents of the whole web, float16 (n, 8, 14, 14), not scaled; cached at ``path``."""
    return _encoded(lambda pixels: vae.encode(pixels).latents, web, path)


def encode_patches(clip_folder: Path, web: Web, path: Path) -> Tensor:
    """The web's patches in CLIP's joint space, float16 (n, 49, Dc); cached at ``path``."""
    clip = OpenCLIPBackbone(f"local-dir:{clip_folder}")
    weight, bias, proj = clip.clip_head().values()

    def encode(pixels: Tensor) -> Tensor:
        patches, _ = clip(normalise(pixels.add(1).div(2)))
        return F.normalize(project_patches(patches, weight, bias, proj), dim=-1)

    return _encoded(encode, web, path)


class TextToLatents(nn.Module):
    """U-Net and text encoder, trained together, and a head that is left behind after training."""

    def __init__(self, vocab_size: int, patch_dim: int = 128) -> None:
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
            # attention among 7 x 7 positions alone: at 14 x 14 it would take half of the time
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        )
        self.align = nn.Sequential(nn.Linear(128, 256), nn.SiLU(), nn.Linear(256, patch_dim))

    def forward(self, noisy: Tensor, t: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity (B, 8, 14, 14), and CLIP's patches (B, 49, Dc) as they are guessed half-way."""
        halfway: list[Tensor] = []
        hook = self.unet.mid_block.register_forward_hook(lambda *call: halfway.append(call[2]))
        context = self.text(ids).last_hidden_state
        velocity = self.unet(noisy, t, encoder_hidden_states=context).sample
        hook.remove()
        return velocity, self.align(halfway[0].flatten(2).transpose(1, 2))


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
    web: Web,
    latents: Tensor,
    patches: Tensor,
    tokenizer: Any,
    checkpoint: Path,
    vocab_size: int,
    steps: int,
    start: Path | None = None,
) -> tuple[TextToLatents, float]:
    """Train U-Net and text encoder.

    Args:
        web (Web): Its captions.
        latents (Tensor): (n, 8, 14, 14), its pictures encoded.
        patches (Tensor): (n, 49, Dc), its pictures' CLIP patches, each of length 1.
        tokenizer: A transformers tokenizer.
        checkpoint (Path): Of the training; if there is one, training goes on from it.
        vocab_size (int): Tokens of the tokenizer.
        steps (int): Steps in all.
        start (Path | None): A pipeline's folder to begin with, without a checkpoint.

    Returns:
        The averaged networks and the latents' scaling factor.
    """
    from diffusers import DDIMScheduler

    torch.manual_seed(0)
    model = TextToLatents(vocab_size, patches.shape[-1])
    if start:
        for part, folder in ((model.unet, "unet"), (model.text, "text_encoder")):
            shipped = type(part).from_pretrained(start / folder, torch_dtype=torch.float32)
            part.load_state_dict(shipped.state_dict())
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
        velocity, guess = model(noisy, t, text)
        snr = a / (1 - a)
        weight = snr.clamp(max=5) / (snr + 1)
        loss = (weight * (velocity - target).square().mean((1, 2, 3), keepdim=True)).mean() / 0.4
        return loss - _ALIGN * F.cosine_similarity(guess, patches[rows].float(), dim=-1).mean()

    return train(
        model, loss_at, checkpoint, steps, lr=8e-4, weight_decay=0.01, ema_decay=0.9985
    ), scale


def export(vae: Any, model: TextToLatents, scale: float, tokenizer: Any, folder: Path) -> None:
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
