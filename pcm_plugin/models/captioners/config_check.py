"""Check of a model's config before the model is built."""

from collections.abc import Mapping
from typing import Any

from pcm_plugin.errors import UserError
from pcm_plugin.models.captioners.base import Captioner
from pcm_plugin.registry import MODELS


def assert_is_captioner(settings: Mapping[str, Any]) -> None:
    """Check that the config of a model is that of a :class:`.Captioner`, without building it.

    Args:
        settings: Config of the model.

    Raises:
        UserError: If it is another model, such as mmpretrain's BLIP; names the command for it.
    """
    kind = MODELS.get(settings["type"])
    if isinstance(kind, type) and not issubclass(kind, Captioner):
        raise UserError(
            f"`model.type` must be a captioner that takes CLIP features, got "
            f"`{settings['type']!r}`: caption with pcm test CONFIG CHECKPOINT "
            "--cfg-options test_evaluator.outfile=captions.json"
        )
