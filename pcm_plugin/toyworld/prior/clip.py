"""The CLIP model of the toy world: an open_clip model trained on the toy web.

As in CLIP (Radford et al., ICML 2021), the class token is trained on pairs of images and captions,
with short texts of the whole image, such as "a photo of a dog", among them. A large CLIP model
learns from hundreds of millions of pairs to align some of its patches with texts too. At the size
of this model that does not happen by itself. In the first half of the training, a weak auxiliary
loss matches short texts to the best patch of an image, as in FILIP (Yao et al., ICLR 2022). No loss
uses the locations of things.

For speed, half of the patches are dropped in training (FLIP, Li et al., CVPR 2023), and matrices
are multiplied in bfloat16.
"""

import json
import math
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from pcm_plugin.formats.tensor_file import write_tensors
from pcm_plugin.toyworld.prior.tokenizer import CONTEXT_LENGTH
from pcm_plugin.toyworld.prior.training import train
from pcm_plugin.toyworld.prior.web import Web
from pcm_plugin.toyworld.scene import PLACES, STUDIO, Scene
from pcm_plugin.toyworld.things import KINDS, plural

_EMBED = 128
_SIZE, _PATCH = 112, 16
_GRID = _SIZE // _PATCH
_MEAN, _STD = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]
BATCH = 192
_SHORT_TEXT_WEIGHT = 0.5
_PATCH_WEIGHT, _PATCH_SCALE, _PATCH_UNTIL = 0.1, 10.0, 0.45
_FIRST_SCALE, _LAST_SCALE, _SCALE_RISE = 40.0, 100.0, 0.5
_DROPPED = 0.5


def model_config(vocab_size: int) -> dict:
    """Return the content of ``open_clip_config.json``."""
    return {
        "model_cfg": {
            "embed_dim": _EMBED,
            "vision_cfg": {
                "image_size": _SIZE,
                "layers": 5,
                "width": 192,
                "head_width": 64,
                "patch_size": _PATCH,
            },
            "text_cfg": {
                "context_length": CONTEXT_LENGTH,
                "vocab_size": vocab_size,
                "width": 128,
                "heads": 4,
                "layers": 3,
                "hf_tokenizer_name": "tokenizer",
                "pool_type": "argmax",
                "tokenizer_kwargs": {"clean": "whitespace"},
            },
        },
        "preprocess_cfg": {
            "mean": _MEAN,
            "std": _STD,
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }


_PROMPTS = ("{}", "a {}", "a photo of a {}", "A photo of {}", "the {}", "photo of {}")


def _short_texts(rng: Random) -> tuple[list[str], list[tuple[str, str | None]]]:
    """Return the short texts of a step, and (kind or place, color or None) of each."""
    texts: list[str] = []
    keys: list[tuple[str, str | None]] = []
    for kind in KINDS.values():
        word = kind.words[0] if rng.random() < 0.6 else rng.choice(kind.words)
        if word == "person":
            word = kind.words[0]
        if rng.random() < 0.15:
            word = plural(word)
        texts.append(rng.choice(_PROMPTS).format(word))
        keys.append((kind.name, None))
        color = rng.choice(kind.colors)
        texts.append(rng.choice(_PROMPTS).format(f"{color} {kind.words[0]}"))
        keys.append((kind.name, color))
    for place in PLACES:
        texts.append(rng.choice(_PROMPTS).format(place))
        keys.append((place, None))
    return texts, keys


def _true_texts(scenes: list[Scene], keys: list[tuple[str, str | None]]) -> Tensor:
    """Return which short texts are true of which scenes, (scenes, texts) bool."""
    column = {key: i for i, key in enumerate(keys)}
    truth = torch.zeros(len(scenes), len(keys), dtype=torch.bool)
    for row, scene in enumerate(scenes):
        for thing in scene.things:
            for key in ((thing.kind, None), (thing.kind, thing.color)):
                if key in column:
                    truth[row, column[key]] = True
        if scene.place != STUDIO:
            truth[row, column[scene.place, None]] = True
    return truth


def contrastive_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Compute the contrastive loss of each positive against the negatives of its row.

    Args:
        logits: (n, m) float.
        truth: (n, m) bool, the positives. Rows without a positive are ignored.

    Returns:
        Scalar.
    """
    negatives = torch.logsumexp(logits.masked_fill(truth, -torch.inf), 1, keepdim=True)
    each = F.softplus(negatives - logits)
    per_row = (each * truth).sum(1) / truth.sum(1).clamp(min=1)
    return per_row[truth.any(1)].mean()


def symmetric_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Compute the sum of the contrastive losses of rows and columns."""
    return contrastive_loss(logits, truth) + contrastive_loss(logits.T, truth.T)


class PriorCLIP(nn.Module):
    """The open_clip model with the parts of its forward pass that the training needs."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip: Any = clip

    def encode_images(self, pixels: Tensor, dropped: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return normalized global (B, D) and patch features (B, N, D) in the joint space.

        Args:
            pixels: (B, 3, 112, 112) float, normalized.
            dropped: Share of the patches that are dropped, at random. Defaults to 0.
        """
        visual, count = self.clip.visual, len(pixels)
        patches = pixels.unflatten(3, (_GRID, _PATCH)).unflatten(2, (_GRID, _PATCH))
        patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        positions = visual.positional_embedding[1:].expand(count, -1, -1)
        if dropped:
            kept = torch.rand(count, _GRID**2).topk(round((1 - dropped) * _GRID**2)).indices
            patches = patches.take_along_dim(kept[..., None], 1)
            positions = positions.take_along_dim(kept[..., None], 1)
        # The convolution of the model as a product of matrices, whose gradient is faster.
        x = patches @ visual.conv1.weight.flatten(1).T + positions
        first = visual.class_embedding + visual.positional_embedding[0]
        x = visual.ln_pre(torch.cat([first.expand(count, 1, -1), x], 1))
        x = visual.ln_post(visual.transformer(x)) @ visual.proj
        x = F.normalize(x.float(), dim=-1)
        return x[:, 0], x[:, 1:]

    def encode_texts(self, ids: Tensor) -> Tensor:
        """Return normalized text features (B, D) of token ids (B, L).

        The ids are truncated to the longest text of the batch. This does not change the features,
        since padding follows the last token and attention is causal.
        """
        clip, length = self.clip, int((ids != 0).sum(1).max())
        x = clip.token_embedding(ids[:, :length]) + clip.positional_embedding[:length]
        x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length])
        x = clip.ln_final(x)[torch.arange(len(ids)), ids.argmax(1)]
        return F.normalize((x @ clip.text_projection).float(), dim=-1)


def normalize(pixels: Tensor) -> Tensor:
    """Normalize pixels (B, 3, H, W) in [0, 1] for the model."""
    mean, std = torch.tensor(_MEAN), torch.tensor(_STD)
    return (pixels - mean[:, None, None]) / std[:, None, None]


def _batch(web: Web, step: int) -> tuple[Tensor, list[int]]:
    """Return pixels (B, 3, 112, 112), shifted randomly by half a patch, and their indices."""
    rng = np.random.default_rng(step)
    rows = np.sort(rng.choice(len(web.scenes), BATCH, replace=False))
    pixels = torch.from_numpy(web.images[rows]).permute(0, 3, 1, 2).float().div_(255)
    down, right = rng.integers(0, 3, 2)
    pixels = F.pad(pixels, (8, 8, 8, 8), mode="replicate")
    pixels = pixels[:, :, 8 * down : 8 * down + _SIZE, 8 * right : 8 * right + _SIZE]
    return normalize(pixels), rows.tolist()


def _scale_at(step: int, steps: int) -> float:
    """Return the logit scale of a step, which rises exponentially and then is constant."""
    progress = min(1.0, step / (_SCALE_RISE * steps))
    return _FIRST_SCALE * (_LAST_SCALE / _FIRST_SCALE) ** progress


def train_clip(
    web: Web, folder: Path, checkpoint: Path, vocab_size: int, steps: int, start: bool = False
) -> None:
    """Train on the web and write an open_clip model in half precision next to its tokenizer.

    Args:
        web: Training data.
        folder: Folder of the tokenizer, to which the model is written.
        checkpoint: Checkpoint of the training. Training resumes from it if it exists.
        vocab_size: Number of tokens of the tokenizer.
        steps: Total number of steps.
        start: Whether to start from the weights in ``folder`` if there is no checkpoint. Defaults
            to False.
    """
    import open_clip
    from open_clip.tokenizer import HFTokenizer

    config = model_config(vocab_size)
    torch.manual_seed(0)
    model = PriorCLIP(open_clip.CLIP(**config["model_cfg"]))
    model.clip.logit_scale.requires_grad_(False)
    if start:
        weights = load_file(folder / "open_clip_model.safetensors")
        model.clip.load_state_dict({k: v.float() for k, v in weights.items()})
    tokenizer = HFTokenizer(str(folder), context_length=CONTEXT_LENGTH)

    def loss_at(step: int) -> Tensor:
        rng = Random(step)
        pixels, rows = _batch(web, step)
        captions = [rng.choice(web.captions[i]) for i in rows]
        short, keys = _short_texts(rng)
        same = torch.tensor([[a == b for b in captions] for a in captions])
        truth = _true_texts([web.scenes[i] for i in rows], keys)
        with torch.autocast("cpu", torch.bfloat16):
            images, patches = model.encode_images(pixels, _DROPPED)
            of_captions = model.encode_texts(tokenizer(captions))
            of_short = model.encode_texts(tokenizer(short))
        scale = _scale_at(step, steps)
        model.clip.logit_scale.fill_(math.log(scale))
        loss = symmetric_loss(scale * images @ of_captions.T, same) / 2
        loss = loss + _SHORT_TEXT_WEIGHT * symmetric_loss(scale * images @ of_short.T, truth)
        if step < _PATCH_UNTIL * steps:
            best = torch.einsum("bnd,td->btn", patches, of_short).amax(-1)
            loss = loss + _PATCH_WEIGHT * symmetric_loss(_PATCH_SCALE * best, truth)
        return loss

    # On a CPU, the gradient of the fused attention in bfloat16 is several times slower.
    with sdpa_kernel(SDPBackend.MATH):
        trained = train(model, loss_at, checkpoint, steps, lr=1e-3, ema_decay=0.99, decay=0.0)
    export(trained, config, folder)


def export(model: PriorCLIP, config: dict, folder: Path) -> None:
    """Write ``open_clip_config.json`` and ``open_clip_model.safetensors``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {key: value.half() for key, value in model.clip.state_dict().items()}
    write_tensors(folder / "open_clip_model.safetensors", weights, {"format": "pt"})
