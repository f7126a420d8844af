"""Build a captioner for images from the arguments of the inferencer."""

import os
from pathlib import Path

from mmengine.config import Config

from pcm_plugin.apis.zoo import find_weights, weights_by_name
from pcm_plugin.engine.checkpoints import load_weights
from pcm_plugin.engine.config_files import read_config_file
from pcm_plugin.engine.inputs import drop_clip_head
from pcm_plugin.errors import UserError
from pcm_plugin.models.captioner_file import check_clip, is_captioner, load_captioner
from pcm_plugin.models.captioners import PCMNet
from pcm_plugin.models.captioners.config_check import assert_is_captioner
from pcm_plugin.registry import MODELS


def build_captioner(
    model: str | os.PathLike | Config | dict | None, weights: str | os.PathLike | None
) -> PCMNet:
    """Build a captioner with its weights.

    Args:
        model: See :class:`~.inferencer.CaptionInferencer`.
        weights: See :class:`~.inferencer.CaptionInferencer`.

    Raises:
        MissingFileError: If a file is missing.
        UserError: If the arguments do not name a captioner, the config cannot be read, or the
            weights do not match the config.
    """
    if model is None and weights is None:
        raise UserError("`weights` must be set: pass a file of `pcm export` or the name of a model")
    if model is None:
        assert weights is not None
        return load_captioner(_find_captioner(Path(weights)))
    if isinstance(model, str | os.PathLike):
        # Without `weights`, a name is that of a captioner, otherwise that of a config.
        if weights is None and Path(model).suffix in ("", ".safetensors"):
            return load_captioner(_find_captioner(Path(model)))
        if Path(model).suffix == ".safetensors" or str(model) in weights_by_name():
            raise UserError(
                f"`weights` must not be set with model={str(model)!r}, which includes its weights"
            )
    if weights is None:
        raise UserError("`weights` must be set with a config: pass the checkpoint of its training")
    if isinstance(model, str | os.PathLike):
        cfg = read_config_file(model)
    else:
        cfg = model if isinstance(model, Config) else Config(model)
    captioner = build_with_clip(cfg)
    load_weights(captioner, str(weights), cfg)
    check_clip(captioner.state_dict(), captioner, weights)
    return captioner


def build_with_clip(cfg: Config) -> PCMNet:
    """Build the captioner of a config with the CLIP model of the config as its backbone.

    Args:
        cfg: Config with ``model``, and with ``clip`` unless the model has a backbone.

    Raises:
        UserError: If the config names no CLIP model, or the model does not take CLIP features.
    """
    assert_is_captioner(cfg.model)
    drop_clip_head(cfg)
    settings = dict(cfg.model)
    if settings.get("backbone") is None:
        if cfg.get("clip") is None:
            raise UserError(
                "the config must name the CLIP model of its features: set "
                "clip=dict(model_name=..., pretrained=...)"
            )
        settings["backbone"] = {
            "type": "pcm_plugin.OpenCLIPBackbone",
            "defer_text": True,
            **cfg.clip,
        }
    return MODELS.build(settings)


def _find_captioner(path: Path) -> Path:
    """Return the file of a captioner: ``path`` itself, or that of the packaged model it names."""
    # A name has no suffix, a file has one.
    if not path.suffix and not path.exists():
        return find_weights(str(path))
    if path.is_file() and not is_captioner(path):
        raise UserError(
            f"{path} does not contain its config: pass the config too (`--config CONFIG`), or "
            "write a captioner file with pcm export CONFIG CHECKPOINT"
        )
    return path
