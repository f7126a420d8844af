"""Checkpoints of the released PCM-Net trainer, under our names."""

import os
import pickle
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.models.decoders import SentenceDecoder
from pcm_plugin.models.decoders.sentence_decoder import sinusoid_positions
from pcm_plugin.models.encoders import VisualSemanticEncoder
from pcm_plugin.models.necks import PCMMixup

POSITION_TABLE = "token_embed.embeddings_pos.pe"
"""The released checkpoint stores its sinusoids; ours are computed."""

_OUTER = {
    "visual_embed.embeddings": "neck.patch_proj",
    "visual_embed.t_embeddings": "neck.text_proj",
    "visual_embed.g_embeddings": "neck.global_proj",
    "visual_embed.embeddings_norm": "neck.norm",
    "encoder.gvfeat_embed.0": "encoder.fuse",
    "encoder.gvfeat_embed.1": "encoder.fuse_norm",
    "token_embed.embeddings_norm": "decoder.embed_norm",
    "predictor.logits": "decoder.output",
}
_SINGLE = {
    "visual_embed.embeddings_pos": "neck.pos_embed",
    "visual_embed.embeddings_token_type.weight": "neck.type_embed.weight",
    "visual_embed.ln_post.weight": "neck.clip_ln_weight",
    "visual_embed.ln_post.bias": "neck.clip_ln_bias",
    "visual_embed.proj": "neck.clip_proj",
    "token_embed.embeddings.weight": "decoder.word_embed.weight",
}
_ATTENTION = {
    "self.query": "query",
    "self.key": "key",
    "self.value": "value",
    "output.dense": "out",
    "output.LayerNorm": "norm",
}
_JOINED = {"qkv": ("query", "key", "value"), "key_value": ("key", "value")}
"""Ours are one matrix where the released checkpoints have several."""

_FEED_FORWARD = {
    "intermediate.dense": "ffn.fc1",
    "output.dense": "ffn.fc2",
    "output.LayerNorm": "ffn.norm",
}


class ModelSizes(NamedTuple):
    """What a config must say to fit a checkpoint; the number of heads is not stored in one.

    Attributes:
        patch_dim: Dv.
        clip_dim: Dc.
        embed_dims: D.
        num_patches: N.
        vocab_size: V, index 0 included.
        ffn_dims: Width of the feed-forward layers.
        encoder_layers: Blocks of the encoder.
        decoder_layers: Blocks of the decoder.
    """

    patch_dim: int
    clip_dim: int
    embed_dims: int
    num_patches: int
    vocab_size: int
    ffn_dims: int
    encoder_layers: int
    decoder_layers: int


def official_names(encoder_layers: int, decoder_layers: int) -> dict[str, str]:
    """Every key of a released checkpoint and ours for it, the position table left out.

    Args:
        encoder_layers: Blocks of the encoder.
        decoder_layers: Blocks of the decoder.

    Returns:
        Official key to key of a :class:`~.captioners.PCMNet`, as :func:`split_products` has them.
    """
    modules = dict(_OUTER)
    for i in range(encoder_layers):
        theirs, ours = f"encoder.layers.{i}", f"encoder.layers.{i}"
        modules |= {f"{theirs}.attention.{a}": f"{ours}.attn.{b}" for a, b in _ATTENTION.items()}
        modules |= {f"{theirs}.{a}": f"{ours}.{b}" for a, b in _FEED_FORWARD.items()}
    for i in range(decoder_layers):
        theirs, ours = f"decoder.g_layers.{i}", f"decoder.layers.{i}"
        for a, b in _ATTENTION.items():
            modules[f"{theirs}.self_attn.{a}"] = f"{ours}.self_attn.{b}"
            modules[f"{theirs}.x_att.{a}"] = f"{ours}.cross_attn.{b}"
        modules |= {f"{theirs}.{a}": f"{ours}.{b}" for a, b in _FEED_FORWARD.items()}
    names = dict(_SINGLE)
    for theirs, ours in modules.items():
        names |= {f"{theirs}.{kind}": f"{ours}.{kind}" for kind in ("weight", "bias")}
    return names


def split_products(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict with queries, keys and values apart.

    Args:
        state: Of a :class:`~.captioners.PCMNet`, or its gradients.

    Returns:
        ``qkv`` as ``query``, ``key`` and ``value``, ``key_value`` as the last two; views.
    """
    apart = {}
    for name, value in state.items():
        stem, _, kind = name.rpartition(".")
        module, _, last = stem.rpartition(".")
        parts = _JOINED.get(last, (last,))
        for part, piece in zip(parts, value.chunk(len(parts)), strict=True):
            apart[f"{module}.{part}.{kind}" if len(parts) > 1 else name] = piece
    return apart


def _join_products(apart: Mapping[str, Tensor], like: Iterable[str]) -> dict[str, Tensor]:
    """The inverse of :func:`split_products`, for the keys of a state dict."""
    joined = {}
    for name in like:
        stem, _, kind = name.rpartition(".")
        module, _, last = stem.rpartition(".")
        parts = [f"{module}.{part}.{kind}" for part in _JOINED.get(last, ())]
        joined[name] = torch.cat([apart[part] for part in parts]) if parts else apart[name]
    return joined


def read_official(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read a released checkpoint without executing what is pickled in it.

    Args:
        path: A ``.pth`` of the released trainer (its weights under ``model``), a plain state dict
            saved by torch, or a state dict in safetensors. A ``module.`` prefix is dropped.

    Returns:
        Official key to tensor.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If it is no checkpoint, or holds objects that only unpickling could read.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no checkpoint at {path}: give a .pth or .safetensors file")
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors and plain values, and is not read for that; save its "
            f"state dict alone, with torch.save or as safetensors: {error}"
        ) from error
    # Bytes that are no pickle at all fail in any way, as KeyError for one.
    except (SafetensorError, RuntimeError, EOFError, LookupError) as error:
        raise UserError(f"{path} is not a checkpoint: {type(error).__name__} {error}") from error
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} holds a {type(content).__name__} instead of a state dict")
    strangers = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if strangers:
        raise UserError(f"{path}: not tensors: {', '.join(sorted(strangers))}")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def convert_official(official: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], ModelSizes]:
    """Rename a released state dict to ours.

    Args:
        official: As :func:`read_official` gives it. The position table may be missing.

    Returns:
        The state dict of a PCMNet with a PCMMixup neck, float32; and its sizes.

    Raises:
        UserError: With every unknown, missing and mis-shaped key in one message.
    """
    encoder_layers = _count_layers(official, "encoder.layers")
    decoder_layers = _count_layers(official, "decoder.g_layers")
    names = official_names(encoder_layers, decoder_layers)
    sizes = _infer_sizes(official, names, encoder_layers, decoder_layers)
    ours_like = _like(sizes)
    expected = {key: value.shape for key, value in split_products(ours_like).items()}
    unknown = sorted(set(official) - set(names) - {POSITION_TABLE})
    problems = [f"unknown key {key}" for key in unknown]
    for key, ours in names.items():
        if key not in official:
            problems.append(f"missing key {key}")
        elif official[key].shape != expected[ours]:
            wanted = str(tuple(expected[ours]))
            if ours == "neck.pos_embed":  # nothing else tells the number of patches
                wanted = f"(1, 1 + patches, {sizes.embed_dims})"
            problems.append(
                f"mis-shaped key {key}: {tuple(official[key].shape)} instead of {wanted}"
            )
    problems += _check_positions(official.get(POSITION_TABLE), sizes.embed_dims)
    if problems:
        raise UserError("not a released PCM-Net checkpoint:\n  " + "\n  ".join(problems))
    apart = {ours: official[key].float().contiguous() for key, ours in names.items()}
    return _join_products(apart, ours_like), sizes


def _count_layers(official: Mapping[str, Tensor], prefix: str) -> int:
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
    # Counting, not the highest index: a gap then shows as unknown and missing keys, and an absurd
    # index cannot make an absurd number of names.
    return max(1, len({match[1] for match in map(pattern.match, official) if match}))


def _infer_sizes(
    official: Mapping[str, Tensor],
    names: Mapping[str, str],
    encoder_layers: int,
    decoder_layers: int,
) -> ModelSizes:
    """The sizes that most keys agree on, so that one wrong tensor shows as the wrong one."""
    # Numbers that cannot be mistaken for each other mark where each size stands in a shape.
    marks = ModelSizes(10007, 10009, 10014, 10036, 10039, 10061, encoder_layers, decoder_layers)
    field_of = {mark: field for field, mark in marks._asdict().items()}
    field_of[marks.num_patches + 1] = "num_patches"
    votes: dict[str, Counter[int]] = {field: Counter() for field in marks._fields}
    expected = split_products(_like(marks))
    for key, ours in names.items():
        shape, theirs = expected[ours].shape, official.get(key)
        if theirs is not None and theirs.dim() == len(shape):
            for mark, size in zip(shape, theirs.shape, strict=True):
                if mark in field_of:
                    votes[field_of[mark]][size] += 1
    found = {field: count.most_common(1)[0][0] for field, count in votes.items() if count}
    found["num_patches"] = max(1, found.get("num_patches", 0) - 1)
    rest = dict.fromkeys(marks._fields, 1)
    layers = {"encoder_layers": encoder_layers, "decoder_layers": decoder_layers}
    return ModelSizes(**{**rest, **found, **layers})


def _like(sizes: ModelSizes) -> dict[str, Tensor]:
    """The state dict of our own modules of these sizes, built without memory."""
    with torch.device("meta"):
        modules: dict[str, nn.Module] = {
            "neck": PCMMixup(
                sizes.patch_dim, sizes.clip_dim, sizes.embed_dims, sizes.num_patches, top_patches=1
            ),
            "encoder": VisualSemanticEncoder(
                sizes.embed_dims, sizes.encoder_layers, num_heads=1, ffn_dims=sizes.ffn_dims
            ),
            "decoder": SentenceDecoder(
                sizes.vocab_size,
                sizes.embed_dims,
                sizes.decoder_layers,
                num_heads=1,
                ffn_dims=sizes.ffn_dims,
                max_positions=1,
            ),
        }
    return {
        f"{room}.{key}": value
        for room, module in modules.items()
        for key, value in module.state_dict().items()
    }


def _check_positions(table: Tensor | None, embed_dims: int) -> list[str]:
    if table is None:
        return []
    shape = tuple(table.shape)
    if len(shape) != 3 or (shape[0], shape[2]) != (1, embed_dims) or shape[1] < 1:
        return [f"mis-shaped key {POSITION_TABLE}: {shape} instead of (1, 5000, {embed_dims})"]
    # An ulp of the frequency is 5e-4 of an angle at position 5000; another table differs by 1.
    if not torch.allclose(table[0].float(), sinusoid_positions(*shape[1:]), atol=1e-2):
        return [f"{POSITION_TABLE} holds other sinusoids than the decoder's"]
    return []
