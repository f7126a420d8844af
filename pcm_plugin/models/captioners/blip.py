"""mmpretrain's BLIP and BLIP-2 captioners with a CLIP-weighted loss.

This module is not imported with the package, since not every version of transformers works with
mmpretrain's models. A config that uses them sets
``custom_imports=dict(imports=['pcm_plugin.models.captioners.blip'])``.
"""

from typing import Any

import torch
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.mm_packages import explain_models_error
from pcm_plugin.models.building import build_module
from pcm_plugin.models.captioners.samples import stack_clip_scores
from pcm_plugin.registry import MODELS
from pcm_plugin.structures import DataSample

try:
    from mmpretrain.models import Blip2Caption, BlipCaption
    from mmpretrain.models.multimodal.blip.language_model import XBertLMHeadDecoder
    from transformers import GenerationMixin
except Exception as error:
    # MMEngine discards the message of an ImportError.
    raise UserError(explain_models_error(error)) from error

_IGNORE_INDEX = -100
"""Label of positions without a target in transformers."""

_GENERATES = hasattr(XBertLMHeadDecoder, "generate")


@MODELS.register_module()
class BlipDecoder(XBertLMHeadDecoder, GenerationMixin):
    """mmpretrain's text decoder of BLIP, which generates with every version of transformers.

    From transformers 4.52 on, a language model has the method ``generate`` only if its class
    inherits it from ``GenerationMixin``, which mmpretrain's class does not. The arguments and the
    names of the weights are those of ``XBertLMHeadDecoder``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not _GENERATES:
            # The forward pass of mmpretrain does not know the caches of these versions.
            self.generation_config.use_cache = False


class _CLIPWeighted:
    """Mixin that replaces the loss of one of mmpretrain's captioners.

    mmpretrain's captioners prepare the tokens and call the language model with ``labels``, but do
    not pass the CLIP scores of the pairs to their loss. So their own ``loss`` runs, a forward hook
    records logits and labels, and the returned value is discarded.

    Args:
        loss: Config of the loss, such as CLIPWeightedCELoss.
        kwargs: Arguments of mmpretrain's captioner.
    """

    language_model: str
    """Name of the submodule that is the language model."""

    remedy: str
    """Advice for users whose language model cannot generate captions."""

    def __init__(self, *, loss: dict | nn.Module, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loss_module = build_module(loss)

    def loss(
        self, images: Tensor, data_samples: list[DataSample], **kwargs: Any
    ) -> dict[str, Tensor]:
        """Compute the loss of a batch.

        Args:
            images: (B, 3, H, W).
            data_samples: Data samples with ``gt_caption`` (str), and ``clip_score`` (float) if the
                loss weights pairs.
            kwargs: Arguments of mmpretrain's ``loss``.

        Returns:
            ``{'loss': scalar}``.
        """
        recorded: dict[str, Tensor] = {}

        def record(_: nn.Module, __: tuple, kwargs: dict, output: Any) -> None:
            recorded.update(logits=output.logits, labels=kwargs["labels"])

        lm = self.get_submodule(self.language_model)  # type: ignore[attr-defined]
        with lm.register_forward_hook(record, with_kwargs=True):
            super().loss(images, data_samples, **kwargs)  # type: ignore[misc]
        # The logits at position t predict token t + 1.
        logits, targets = recorded["logits"][:, :-1], recorded["labels"][:, 1:]  # (B, T - 1, ...)
        targets = torch.where(targets == _IGNORE_INDEX, -1, targets)
        scores = stack_clip_scores(data_samples, images)  # (B,)
        return {"loss": self.loss_module(logits, targets, scores)}

    def predict(
        self, images: Tensor, data_samples: list[DataSample] | None = None, **kwargs: Any
    ) -> list[DataSample]:
        """Generate captions.

        Args:
            images: (B, 3, H, W).
            data_samples: Data samples to complete. Defaults to None.
            kwargs: Arguments of mmpretrain's ``predict``.

        Returns:
            The data samples with ``pred_caption`` (str).

        Raises:
            UserError: If the language model cannot generate with the installed transformers.
        """
        lm = self.get_submodule(self.language_model)  # type: ignore[attr-defined]
        if not hasattr(lm, "generate"):
            raise UserError(
                f"{type(lm).__name__} of the installed mmpretrain can be trained, but cannot "
                f"generate captions with the installed transformers: {self.remedy}"
            )
        return super().predict(images, data_samples, **kwargs)  # type: ignore[misc]


@MODELS.register_module()
class CLIPWeightedBlipCaption(_CLIPWeighted, BlipCaption):
    """mmpretrain's ``BlipCaption`` with a loss of this package.

    The arguments are those of ``BlipCaption`` and ``loss``.
    """

    language_model = "seq_gen_head.decoder"
    remedy = "set model.decoder_head.decoder.type='pcm_plugin.BlipDecoder'"


@MODELS.register_module()
class CLIPWeightedBlip2Caption(_CLIPWeighted, Blip2Caption):
    """mmpretrain's ``Blip2Caption`` with a loss of this package.

    The arguments are those of ``Blip2Caption`` and ``loss``.
    """

    language_model = "text_backbone"
    remedy = "use mmpretrain 1.2 with transformers below 4.52"
