"""The CLIP model of the toy world: an open_clip model trained on the toy web.

In addition to captions, the web has tags (things, colored things and places that a picture shows)
and the location of things. Tags represent short texts, such as "a photo of a dog", and are matched
to the whole picture and to its best patch (as in FILIP, Yao et al., ICLR 2022). A large CLIP model
learns the location of things from hundreds of millions of pictures. Here it is supervised: among
the patches of a picture, a tag is trained to select those on its thing.
"""

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from pcm_plugin.formats.tensor_file import write_tensors
from pcm_plugin.toyworld.prior.tokenizer import CONTEXT_LENGTH
from pcm_plugin.toyworld.prior.training import train
from pcm_plugin.toyworld.prior.web import CELLS, Web
from pcm_plugin.toyworld.scene import PLACES, STUDIO, Scene
from pcm_plugin.toyworld.things import KINDS, plural

_EMBED = 128
_MEAN, _STD = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]
BATCH = 192


def model_config(vocab_size: int) -> dict:
    """Return the content of ``open_clip_config.json``.

    The global feature is the mean of the patches after ``ln_post``. It is this pooling that aligns
    patches with concepts in the joint space.
    """
    return {
        "model_cfg": {
            "embed_dim": _EMBED,
            "vision_cfg": {
                "image_size": 112,
                "layers": 4,
                "width": 128,
                "head_width": 32,
                "patch_size": 16,
                "pool_type": "avg",
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


def _tag_texts(rng: Random) -> tuple[list[str], list[tuple[str, str | None]]]:
    """Return the tags of a step, and (kind or place, color or None) of each."""
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


def _tag_truth(scenes: list[Scene], keys: list[tuple[str, str | None]]) -> Tensor:
    """Return which tags are true of which scenes, (scenes, tags) bool."""
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


class PriorCLIP(nn.Module):
    """The open_clip model, and the logit scale of patches, which is used in training only."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip: Any = clip
        self.patch_scale = nn.Parameter(torch.tensor(2.3))

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return normalized global (B, D) and patch features (B, N, D) in the joint space."""
        visual = self.clip.visual
        x = visual.transformer(visual._embeds(pixels))
        patches = visual.ln_post(x)[:, 1:] @ visual.proj
        return F.normalize(patches.mean(1), dim=-1), F.normalize(patches, dim=-1)

    def encode_texts(self, ids: Tensor) -> Tensor:
        """Return normalized text features (B, D) of token ids (B, L).

        The ids are truncated to the longest text of the batch. This does not change the features,
        since padding follows the last token and attention is causal.
        """
        clip, length = self.clip, int((ids != 0).sum(1).max())
        x = clip.token_embedding(ids[:, :length]) + clip.positional_embedding[:length]
        x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length])
        x = clip.ln_final(x)[torch.arange(len(ids)), ids.argmax(1)]
        return F.normalize(x @ clip.text_projection, dim=-1)


def normalize(pixels: Tensor) -> Tensor:
    """Normalize pixels (B, 3, H, W) in [0, 1] for the model."""
    mean, std = torch.tensor(_MEAN), torch.tensor(_STD)
    return (pixels - mean[:, None, None]) / std[:, None, None]


def _batch(web: Web, step: int) -> tuple[Tensor, list[int], Tensor]:
    """Return a batch of pictures, shifted randomly by half a patch.

    Returns:
        Pixels (B, 3, 112, 112); indices of the pictures; and the share (B, 3, 49) of each patch
        that each thing covers, from 0 to 1.
    """
    rng = np.random.default_rng(step)
    rows = np.sort(rng.choice(len(web.scenes), BATCH, replace=False))
    pixels = torch.from_numpy(web.images[rows]).permute(0, 3, 1, 2).float().div_(255)
    cover = torch.from_numpy(web.cover[rows]).float().div_(255)
    down, right = rng.integers(0, 3, 2)
    pixels = F.pad(pixels, (8, 8, 8, 8), mode="replicate")
    pixels = pixels[:, :, 8 * down : 8 * down + 112, 8 * right : 8 * right + 112]
    cover = F.pad(cover, (1, 1, 1, 1))[:, :, down : down + CELLS, right : right + CELLS]
    return normalize(pixels), rows.tolist(), F.avg_pool2d(cover, 2).flatten(2)


def localization_loss(logits: Tensor, cover: Tensor) -> Tensor:
    """Compute the localization loss: negative log-probability of the patches on a thing.

    Args:
        logits: (n, 49) float, scores of each patch for the tag of the thing.
        cover: (n, 49) float, share of each patch that the thing covers.

    Returns:
        Scalar: mean over visible things. A patch is on a thing that covers a quarter of it, or
        else as much of it as of any patch.
    """
    is_on_thing = cover >= cover.amax(1, keepdim=True).clamp(max=0.25)
    is_visible = cover.amax(1) > 0.02
    chosen = logits.log_softmax(1).masked_fill(~is_on_thing, -torch.inf).logsumexp(1)
    return -chosen[is_visible].mean()


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
    if start:
        weights = load_file(folder / "open_clip_model.safetensors")
        model.clip.load_state_dict({k: v.float() for k, v in weights.items()})
    tokenizer = HFTokenizer(str(folder), context_length=CONTEXT_LENGTH)

    def loss_at(step: int) -> Tensor:
        rng = Random(step)
        pixels, rows, cover = _batch(web, step)
        texts = [rng.choice(web.captions[i]) for i in rows]
        tags, keys = _tag_texts(rng)
        scenes = [web.scenes[i] for i in rows]
        truth = _tag_truth(scenes, keys)
        images, patches = model.encode_images(pixels)
        captions, tag_features = (
            model.encode_texts(tokenizer(texts)),
            model.encode_texts(tokenizer(tags)),
        )
        scale = model.clip.logit_scale.clamp(max=np.log(100)).exp()
        logits = scale * images @ captions.T
        same = torch.tensor([[a == b for b in texts] for a in texts])
        loss = (contrastive_loss(logits, same) + contrastive_loss(logits.T, same)) / 2
        for_tags = scale * images @ tag_features.T
        best = torch.einsum("bnd,td->btn", patches, tag_features)
        for_patches = model.patch_scale.exp() * best.amax(-1)
        for score, weight in ((for_tags, 0.5), (for_patches, 0.25)):
            both = contrastive_loss(score, truth) + contrastive_loss(score.T, truth.T)
            loss = loss + weight * both
        where = [
            (row, j, keys.index((thing.kind, None)))
            for row, scene in enumerate(scenes)
            for j, thing in enumerate(scene.things)
        ]
        row, thing, tag = torch.tensor(where).T
        scores = model.patch_scale.exp() * best[row, tag]
        return loss + 0.5 * localization_loss(scores, cover[row, thing])

    trained = train(model, loss_at, checkpoint, steps, lr=1.5e-3)
    export(trained, config, folder)


def export(model: PriorCLIP, config: dict, folder: Path) -> None:
    """Write ``open_clip_config.json`` and ``open_clip_model.safetensors``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {key: value.half() for key, value in model.clip.state_dict().items()}
    write_tensors(folder / "open_clip_model.safetensors", weights, {"format": "pt"})
