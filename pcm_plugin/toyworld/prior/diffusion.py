"""The text-to-image model of the toy world: a small Stable Diffusion pipeline.

An autoencoder (112 x 112 pixels to 14 x 14 latents) is trained first, then a U-Net together with a
CLIP text encoder. They predict the velocity (Salimans and Ho, ICLR 2022) with min-SNR-5 weights
(Hang et al., ICCV 2023); one caption in ten is dropped for classifier-free guidance. The coarsest
features of the U-Net are aligned with the CLIP patch features of the clean picture, on the same
7 x 7 grid (representation alignment, Yu et al., ICLR 2025), which makes the training faster.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from pcm_plugin.formats.tensor_file import write_tensors
from pcm_plugin.models.backbones import OpenCLIPBackbone
from pcm_plugin.models.functional.patch_affinity import project_patches
from pcm_plugin.toyworld.prior.clip import normalize
from pcm_plugin.toyworld.prior.tokenizer import CONTEXT_LENGTH
from pcm_plugin.toyworld.prior.training import train
from pcm_plugin.toyworld.prior.web import Web, to_tensor

_VAE_BATCH, _VAE_CROP, _BATCH = 16, 40, 64
_ALIGNMENT_WEIGHT = 0.25
LATENTS = 8


def build_autoencoder() -> Any:
    """Build an autoencoder with three downsamplings and no normalization, to be fast on a CPU."""
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
def _init_as_blur(vae: Any) -> None:
    """Initialize an autoencoder to blur: three latents hold the mean color of 8 x 8 pixels.

    With a random initialization, most of the short training is needed to learn to encode colors.
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
    # Map colors in [0, 1] to latents in [-2, 2] and back.
    into.weight[:3] *= 4
    into.bias[:3] = -2
    back.weight[:3] *= 0.25
    back.bias[:3] = 0.5
    out.weight[:, 3:] *= 0.1


def train_autoencoder(web: Web, checkpoint: Path, steps: int, start: Path | None = None) -> Any:
    """Train the autoencoder on crops.

    The loss is the squared and absolute error of pixels, the absolute error of their differences,
    which preserves edges, and a penalty on large latents. Noise is added to the latents, so that
    the decoder tolerates errors of the diffusion model. Crops suffice, since the model has no
    attention, and allow more steps in the same time.

    Args:
        web: Training data.
        checkpoint: Checkpoint of the training. Training resumes from it if it exists.
        steps: Total number of steps.
        start: Folder of a pipeline to start from if there is no checkpoint. Defaults to None.

    Returns:
        The autoencoder with averaged weights.
    """
    torch.manual_seed(0)
    if start:
        vae = type(build_autoencoder()).from_pretrained(start / "vae", torch_dtype=torch.float32)
    else:
        vae = build_autoencoder()
        _init_as_blur(vae)
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
def _encode_cached(
    encode: Callable[[Tensor], Tensor], web: Web, path: Path, encoder: str
) -> Tensor:
    """Encode all pictures, which are in [-1, 1], to float16; the result is cached at ``path``.

    Args:
        encode: Encodes a batch of pictures.
        web: The pictures.
        path: File of the cache. It is replaced if it was made by another encoder or of another
            number of pictures.
        encoder: Identity of the encoder.
    """
    made_of = {"encoder": encoder, "pictures": str(len(web.scenes))}
    if path.exists():
        with safe_open(path, "pt") as file:
            if file.metadata() == made_of:
                return file.get_tensor(path.stem)
    parts = []
    for start in tqdm(range(0, len(web.scenes), 64), desc=path.stem, mininterval=5):
        parts.append(encode(to_tensor(web.images[start : start + 64])).half())
    encoded = torch.cat(parts)
    write_tensors(path, {path.stem: encoded}, made_of)
    return encoded


def _weights_id(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for key, value in model.state_dict().items():
        digest.update(key.encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def encode_web(vae: Any, web: Web, path: Path) -> Tensor:
    """Return the unscaled latents of the web, (n, 8, 14, 14) float16, cached at ``path``."""
    identity = _weights_id(vae)
    return _encode_cached(lambda pixels: vae.encode(pixels).latents, web, path, identity)


def encode_patches(clip_folder: Path, web: Web, path: Path) -> Tensor:
    """Return the web's patches in CLIP's joint space, (n, 49, Dc) float16, cached at ``path``."""
    clip = OpenCLIPBackbone(f"local-dir:{clip_folder}")
    weight, bias, proj = clip.clip_head().values()

    def encode(pixels: Tensor) -> Tensor:
        patches, _ = clip(normalize(pixels.add(1).div(2)))
        return F.normalize(project_patches(patches, weight, bias, proj), dim=-1)

    return _encode_cached(encode, web, path, _weights_id(clip))


class TextToLatents(nn.Module):
    """U-Net and text encoder, and the alignment head, which is used in training only."""

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
            # Attention at 7 x 7 only. At 14 x 14 it would take half of the time.
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        )
        self.align = nn.Sequential(nn.Linear(128, 256), nn.SiLU(), nn.Linear(256, patch_dim))

    def forward(self, noisy: Tensor, t: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Predict velocity (B, 8, 14, 14), and CLIP patches (B, 49, Dc) from the middle block."""
        halfway: list[Tensor] = []
        hook = self.unet.mid_block.register_forward_hook(lambda *call: halfway.append(call[2]))
        context = self.text(ids).last_hidden_state
        velocity = self.unet(noisy, t, encoder_hidden_states=context).sample
        hook.remove()
        return velocity, self.align(halfway[0].flatten(2).transpose(1, 2))


def scheduler_config() -> dict:
    """Return the noise schedule of the training, as arguments of a diffusers scheduler."""
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
        web: Training data, of which the captions are used.
        latents: (n, 8, 14, 14), unscaled latents of the pictures.
        patches: (n, 49, Dc), normalized CLIP patches of the pictures.
        tokenizer: Tokenizer of transformers.
        checkpoint: Checkpoint of the training. Training resumes from it if it exists.
        vocab_size: Number of tokens of the tokenizer.
        steps: Total number of steps.
        start: Folder of a pipeline to start from if there is no checkpoint. Defaults to None.

    Returns:
        The networks with averaged weights, and the scaling factor of the latents.
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
        velocity, aligned = model(noisy, t, text)
        snr = a / (1 - a)
        weight = snr.clamp(max=5) / (snr + 1)
        loss = (weight * (velocity - target).square().mean((1, 2, 3), keepdim=True)).mean() / 0.4
        return (
            loss
            - _ALIGNMENT_WEIGHT * F.cosine_similarity(aligned, patches[rows].float(), dim=-1).mean()
        )

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
    for part in (vae, model.unet):
        # Older versions of diffusers cannot save tensors that are not contiguous.
        part.to(memory_format=torch.contiguous_format)
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)
