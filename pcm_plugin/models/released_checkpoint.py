"""Read checkpoints of the released PCM-Net trainer and convert their keys and tensors to ours."""

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
"""Key of the position embeddings, which released checkpoints store and our decoder computes."""

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
    "visual_embed.ln_post.weight": "neck.matcher.clip_head.ln_weight",
    "visual_embed.ln_post.bias": "neck.matcher.clip_head.ln_bias",
    "visual_embed.proj": "neck.matcher.clip_head.proj",
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
"""Our joint projections, and the separate ones of the released checkpoints that they consist of."""

_FEED_FORWARD = {
    "intermediate.dense": "ffn.fc1",
    "output.dense": "ffn.fc2",
    "output.LayerNorm": "ffn.norm",
}


class ModelSizes(NamedTuple):
    """Sizes of a checkpoint's model; checkpoints do not store the number of attention heads.

    Attributes:
        patch_dim: Dv.
        clip_dim: Dc.
        embed_dims: D.
        num_patches: N.
        vocab_size: V, including index 0.
        ffn_dims: Width of the feed-forward layers.
        encoder_layers: Number of blocks of the encoder.
        decoder_layers: Number of blocks of the decoder.
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
    """Map the keys of a released checkpoint, except the position embeddings, to our keys.

    Args:
        encoder_layers: Number of blocks of the encoder.
        decoder_layers: Number of blocks of the decoder.

    Returns:
        Released key to key of a :class:`.PCMNet` in the form of
        :func:`split_projections`.
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


def split_projections(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split the joint projections of queries, keys and values in our state dict.

    Args:
        state: State dict of a :class:`.PCMNet`, or its gradients by the same keys.

    Returns:
        The state dict with ``qkv`` split into ``query``, ``key`` and ``value``, and ``key_value``
        into ``key`` and ``value``. The tensors are views.
    """
    split = {}
    for name, value in state.items():
        stem, _, kind = name.rpartition(".")
        module, _, last = stem.rpartition(".")
        parts = _JOINED.get(last, (last,))
        for part, piece in zip(parts, value.chunk(len(parts)), strict=True):
            split[f"{module}.{part}.{kind}" if len(parts) > 1 else name] = piece
    return split


def _join_projections(split: Mapping[str, Tensor], keys: Iterable[str]) -> dict[str, Tensor]:
    """Invert :func:`split_projections` for the given keys of our state dict."""
    joined = {}
    for name in keys:
        stem, _, kind = name.rpartition(".")
        module, _, last = stem.rpartition(".")
        parts = [f"{module}.{part}.{kind}" for part in _JOINED.get(last, ())]
        joined[name] = torch.cat([split[part] for part in parts]) if parts else split[name]
    return joined


def read_official(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read a released checkpoint without running code from it.

    Args:
        path: A ``.pth`` of the released trainer (weights under ``model``), a state dict saved by
            torch, or a state dict in safetensors. A prefix ``module.`` is removed from keys.

    Returns:
        Released key to tensor, on the CPU.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If it is not a checkpoint, or has objects that are not tensors or plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no checkpoint at {path}: pass a .pth or .safetensors file")
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} has objects other than tensors and plain values, and is therefore not read: "
            f"save only its state dict, with torch.save or as safetensors ({error})"
        ) from error
    # Bytes that are not a pickle may raise any of these.
    except (SafetensorError, RuntimeError, EOFError, LookupError) as error:
        raise UserError(f"{path} is not a checkpoint: {type(error).__name__} {error}") from error
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} must have a state dict, got a {type(content).__name__}")
    others = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise UserError(
            f"{path} must have only tensors, got others at: {', '.join(sorted(others))}"
        )
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def convert_official(official: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], ModelSizes]:
    """Convert a released state dict to ours.

    Args:
        official: From :func:`read_official`. The position embeddings may be missing.

    Returns:
        The state dict of a PCMNet with a PCMMixup neck, in float32, and its sizes.

    Raises:
        UserError: If it does not fit; the message lists all unknown, missing and mis-shaped keys.
    """
    encoder_layers = _count_layers(official, "encoder.layers")
    decoder_layers = _count_layers(official, "decoder.g_layers")
    names = official_names(encoder_layers, decoder_layers)
    sizes = _infer_sizes(official, names, encoder_layers, decoder_layers)
    ours_like = _meta_state_dict(sizes)
    expected = {key: value.shape for key, value in split_projections(ours_like).items()}
    unknown = sorted(set(official) - set(names) - {POSITION_TABLE})
    problems = [f"unknown key {key}" for key in unknown]
    for key, ours in names.items():
        if key not in official:
            problems.append(f"missing key {key}")
        elif official[key].shape != expected[ours]:
            wanted = str(tuple(expected[ours]))
            if ours == "neck.pos_embed":  # no other tensor shows the number of patches
                wanted = f"(1, 1 + patches, {sizes.embed_dims})"
            problems.append(
                f"mis-shaped key {key}: {tuple(official[key].shape)} instead of {wanted}"
            )
    problems += _check_positions(official.get(POSITION_TABLE), sizes.embed_dims)
    if problems:
        raise UserError("not a released PCM-Net checkpoint:\n  " + "\n  ".join(problems))
    split = {ours: official[key].float().contiguous() for key, ours in names.items()}
    return _join_projections(split, ours_like), sizes


def _count_layers(official: Mapping[str, Tensor], prefix: str) -> int:
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d+)\.")
    # The number of indices, not the highest: a gap then shows as unknown and missing keys, and an
    # absurd index does not create an absurd number of names.
    return max(1, len({match[1] for match in map(pattern.match, official) if match}))


def _infer_sizes(
    official: Mapping[str, Tensor],
    names: Mapping[str, str],
    encoder_layers: int,
    decoder_layers: int,
) -> ModelSizes:
    """Infer the sizes on which most keys agree, so that a single wrong tensor is recognized."""
    # Distinct numbers mark where each size occurs in a shape.
    marks = ModelSizes(10007, 10009, 10014, 10036, 10039, 10061, encoder_layers, decoder_layers)
    field_of = {mark: field for field, mark in marks._asdict().items()}
    field_of[marks.num_patches + 1] = "num_patches"
    votes: dict[str, Counter[int]] = {field: Counter() for field in marks._fields}
    expected = split_projections(_meta_state_dict(marks))
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


def _meta_state_dict(sizes: ModelSizes) -> dict[str, Tensor]:
    """Return the state dict of our modules of these sizes on the meta device."""
    with torch.device("meta"):
        modules: dict[str, nn.Module] = {
            "neck": PCMMixup(
                sizes.patch_dim, sizes.clip_dim, sizes.embed_dims, sizes.num_patches, num_pairs=1
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
        f"{name}.{key}": value
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }


def _check_positions(table: Tensor | None, embed_dims: int) -> list[str]:
    if table is None:
        return []
    shape = tuple(table.shape)
    if len(shape) != 3 or (shape[0], shape[2]) != (1, embed_dims) or shape[1] < 1:
        return [f"mis-shaped key {POSITION_TABLE}: {shape} instead of (1, 5000, {embed_dims})"]
    # A rounding error of a frequency changes an angle at position 5000 by 5e-4; other frequencies
    # change it by about 1.
    if not torch.allclose(table[0].float(), sinusoid_positions(*shape[1:]), atol=1e-2):
        return [f"{POSITION_TABLE} has other sinusoids than the decoder"]
    return []
