"""mmpretrain's BLIP and BLIP-2 captioners with a CLIP-weighted loss.

Not imported with the package, since mmpretrain's models need a transformers of their time. A config
that uses them says ``custom_imports=dict(imports=['pcm_plugin.models.captioners.blip'])``.
"""

from typing import Any

import torch
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.models.building import build_module
from pcm_plugin.models.captioners.base import clip_scores
from pcm_plugin.registry import MODELS
from pcm_plugin.structures import DataSample

try:
    from mmpretrain.models import Blip2Caption, BlipCaption
except Exception as error:
    import transformers

    # MMEngine keeps the message of any error but an ImportError.
    raise UserError(
        f"mmpretrain's models cannot be imported beside transformers {transformers.__version__} "
        f"({type(error).__name__}: {error}). They need one below 4.52: pip install "
        "'transformers>=4.41,<4.52', which is pcm-plugin's extra 'blip'. Everything else of "
        "pcm_plugin works without."
    ) from error

_NO_WORD = -100
"""How transformers marks targets that are none."""


class _CLIPWeighted:
    """Makes a captioner's loss of the logits of its language model.

    mmpretrain's captioners prepare the words and call the language model with ``labels``, but
    their loss knows nothing of the pairs' scores; so their own ``loss`` runs, and logits and labels
    are noted where they pass. What that loss comes to is not used.

    Args:
        loss: Config of the loss, such as CLIPWeightedCELoss.
        kwargs: As mmpretrain's captioner takes them.
    """

    language_model: str
    """Where the captioner has its language model."""

    def __init__(self, *, loss: dict | nn.Module, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loss_module = build_module(loss)

    def loss(
        self, images: Tensor, data_samples: list[DataSample], **kwargs: Any
    ) -> dict[str, Tensor]:
        """Compute the loss of a batch.

        Args:
            images: (B, 3, H, W).
            data_samples: With ``gt_caption`` (str), and ``clip_score`` (float) if the loss weights
                pairs.
            kwargs: As mmpretrain's captioner takes them.

        Returns:
            ``{'loss': scalar}``.
        """
        passed: dict[str, Tensor] = {}

        def note(_: nn.Module, __: tuple, given: dict, output: Any) -> None:
            passed.update(logits=output.logits, labels=given["labels"])

        lm = self.get_submodule(self.language_model)  # type: ignore[attr-defined]
        with lm.register_forward_hook(note, with_kwargs=True):
            super().loss(images, data_samples, **kwargs)  # type: ignore[misc]
        # The word at a place is foretold one place before.
        targets = passed["labels"][:, 1:]
        targets = torch.where(targets == _NO_WORD, -1, targets)
        scores = clip_scores(data_samples, images)
        return {"loss": self.loss_module(passed["logits"][:, :-1], targets, scores)}


@MODELS.register_module()
class CLIPWeightedBlipCaption(_CLIPWeighted, BlipCaption):
    """mmpretrain's ``BlipCaption`` with another loss: its arguments, and ``loss``."""

    language_model = "seq_gen_head.decoder"


@MODELS.register_module()
class CLIPWeightedBlip2Caption(_CLIPWeighted, Blip2Caption):
    """mmpretrain's ``Blip2Caption`` with another loss: its arguments, and ``loss``."""

    language_model = "text_backbone"
