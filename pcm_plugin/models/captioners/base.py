"""Base class of captioners: their inputs, modes and outputs."""

from abc import ABCMeta, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from mmengine.model import BaseModel
from PIL.Image import Image
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.formats.required_file import ReadsFiles
from pcm_plugin.models.backbones import Backbone
from pcm_plugin.models.building import build_module
from pcm_plugin.models.captioners.encoded_images import EncodedImages
from pcm_plugin.models.captioners.samples import (
    attach_captions,
    attach_mixup_info,
    read_captions,
    stack_clip_scores,
)
from pcm_plugin.models.decoding.config import DecodingConfig
from pcm_plugin.models.decoding.hypothesis import CaptionHypothesis
from pcm_plugin.models.decoding.reranking import add_similarities, rerank
from pcm_plugin.models.decoding.second_clip import SecondCLIP, encode_images, read_images
from pcm_plugin.models.necks import Neck
from pcm_plugin.structures import DataSample


class Captioner(BaseModel, ReadsFiles, metaclass=ABCMeta):
    """Base class of captioners: [CLIP backbone] -> neck -> text decoder.

    The input is features (``patch_feats`` and ``global_feats``) or, with a backbone, ``images``.
    Nothing else differs between training on a feature store and captioning images. Subclasses
    implement :meth:`forward_decoder` and :meth:`generate`, and override :meth:`encode` if they have
    an encoder.

    The arguments ``neck``, ``loss`` and ``backbone`` are modules or configs of registered types.

    Args:
        neck: Computes tokens from features, such as PCMMixup.
        loss: Compares logits and targets, such as CLIPWeightedCELoss. None is enough for inference.
        backbone: Computes features from images, such as OpenCLIPBackbone; or None.
        decoding: Changes to ``default_decoding``, by name of the setting, or all settings.
        data_preprocessor: MMEngine's data preprocessor. None moves batches to the model's device.
        init_cfg: MMEngine's initialization config.

    Attributes:
        default_decoding (DecodingConfig): Settings of :meth:`generate` that ``decoding`` changes.
        decoding (DecodingConfig): Settings of :meth:`generate`.

    Raises:
        UserError: If a decoding setting is unknown or out of range, re-ranking lacks its backbone,
            or neck and backbone disagree on whether patches are in the joint space.
    """

    default_decoding: ClassVar[DecodingConfig] = DecodingConfig()

    def __init__(
        self,
        neck: dict | Neck,
        loss: dict | nn.Module | None,
        backbone: dict | Backbone | None,
        decoding: Mapping[str, Any] | DecodingConfig | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        if not isinstance(decoding, DecodingConfig):
            decoding = self.default_decoding.updated(decoding or {})
        self.decoding = decoding
        self.neck: Neck = build_module(neck)
        self.loss_module = None if loss is None else build_module(loss)
        self.backbone: Backbone | None = None if backbone is None else build_module(backbone)
        if decoding.is_reranked and self.backbone is None:
            raise UserError(
                f"{_refusal(decoding, 'without a backbone')}: set backbone=dict("
                "type='pcm_plugin.OpenCLIPBackbone', ...) to the CLIP that made the features"
            )
        self._second_clip = SecondCLIP()
        if decoding.rerank_clip is not None:
            self._second_clip.load(decoding)
        if self.backbone is not None:
            _check_patches(self.neck, self.backbone)
        if self.backbone is not None and self.neck.needs_clip_head:
            self.neck.set_clip_head(self.backbone.clip_head())

    @abstractmethod
    def forward_decoder(
        self, encoded: EncodedImages, captions: list[str], packed: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Compute the logits of given captions (teacher forcing).

        Args:
            encoded: Output of :meth:`encode`.
            captions: B captions.
            packed: Whether to compute the logits of target tokens only. Defaults to False.

        Returns:
            Logits (B, T, V), or (n, V) of the n target tokens if ``packed``; and the targets (B, T)
            int64, -1 where there is no token.
        """

    def check_decoding(self, decoding: DecodingConfig) -> None:
        """Check that :meth:`generate` can follow the settings of a search.

        Captioners that support constraints on the words override it.

        Raises:
            UserError: If it cannot.
        """
        if decoding.has_constraints:
            raise UserError(
                f"{type(self).__name__} does not support `start`, `include` and `exclude`: leave "
                "them out"
            )

    @abstractmethod
    def generate(
        self, encoded: EncodedImages, decoding: DecodingConfig
    ) -> list[list[CaptionHypothesis]]:
        """Generate captions of encoded images.

        Args:
            encoded: Output of :meth:`encode`.
            decoding: Settings of the search.

        Returns:
            The captions of each image, best first. Their number is ``num_captions``, or that of all
            beams if they are to be re-ranked.
        """

    def file_values(self) -> dict[str, Any]:
        """Return what a captioner file stores in addition to weights and settings.

        Returns:
            JSON values by key of the metadata. :meth:`file_arguments` gets them when the file is
            read.

        Raises:
            UserError: If this captioner cannot be stored in a file, as in the base class.
        """
        raise UserError(
            f"`model` must be a captioner that fits into one file, got a `{type(self).__name__}`: "
            "use its config and checkpoint"
        )

    @classmethod
    def file_arguments(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return constructor arguments from the metadata of a captioner file.

        Args:
            values: JSON values by key, among them those of :meth:`file_values`.

        Raises:
            KeyError: If a value is missing.
        """
        return {}

    def extra_tensors(self) -> dict[str, Tensor]:
        """Return the tensors that inference needs and a checkpoint does not contain, by name."""
        return self.neck.extra_tensors()

    def set_extra_tensors(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Set the tensors that :meth:`extra_tensors` returned.

        Args:
            tensors: Tensors by name.
            values: Metadata of the captioner file, with ``concepts``, the words of the concepts.
        """
        self.neck.set_extra_tensors(tensors, values["concepts"])

    def forward(
        self,
        images: Tensor | None = None,
        patch_feats: Tensor | None = None,
        global_feats: Tensor | None = None,
        data_samples: list[DataSample] | None = None,
        mode: str = "tensor",
    ) -> Tensor | dict[str, Tensor] | list[DataSample]:
        """Run the captioner.

        Args:
            images: (B, 3, H, W), preprocessed for the backbone. Replaces both features.
            patch_feats: (B, N, Dv), CLIP's last hidden states before ``ln_post``.
            global_feats: (B, Dc), CLIP's image embeddings.
            data_samples: One per image. Modes ``'loss'`` and ``'tensor'`` read ``gt_caption``
                (str), mode ``'loss'`` also ``clip_score`` (float) if the loss weights pairs.
            mode: ``'tensor'``, ``'loss'`` or ``'predict'``.

        Returns:
            - ``'tensor'``: logits (B, T, V) of the given captions (teacher forcing);
            - ``'loss'``: see :meth:`loss`;
            - ``'predict'``: see :meth:`predict`.

        Raises:
            UserError: If the mode is unknown, or an input that it needs is missing.
        """
        if mode == "loss":
            return self.loss(images, patch_feats, global_feats, data_samples)
        if mode == "predict":
            return self.predict(images, patch_feats, global_feats, data_samples)
        if mode != "tensor":
            raise UserError(f"`mode` must be 'tensor', 'loss' or 'predict', got `{mode!r}`")
        captions = read_captions(data_samples)
        feats = self._get_feats(images, patch_feats, global_feats)
        return self.forward_decoder(self.encode(*feats, data_samples), captions)[0]

    def loss(
        self,
        images: Tensor | None = None,
        patch_feats: Tensor | None = None,
        global_feats: Tensor | None = None,
        data_samples: list[DataSample] | None = None,
    ) -> dict[str, Tensor]:
        """Compute the training loss; the arguments are those of :meth:`forward`.

        Returns:
            ``{'loss': scalar}``.

        Raises:
            UserError: If there is no loss module, or an input is missing.
        """
        if self.loss_module is None:
            raise UserError(
                "`loss` must be set to train, got `None`: build the model with "
                "loss=dict(type='pcm_plugin.CLIPWeightedCELoss', ...)"
            )
        captions = read_captions(data_samples)
        feats = self._get_feats(images, patch_feats, global_feats)
        encoded = self.encode(*feats, data_samples)
        logits, targets = self.forward_decoder(encoded, captions, packed=True)
        scores = stack_clip_scores(data_samples or [], encoded.encoder_out)
        return {"loss": self.loss_module(logits, targets, scores)}

    def predict(
        self,
        images: Tensor | None = None,
        patch_feats: Tensor | None = None,
        global_feats: Tensor | None = None,
        data_samples: Sequence[DataSample] | None = None,
        decoding: DecodingConfig | None = None,
        pil_images: Sequence[Image] | None = None,
    ) -> list[DataSample]:
        """Caption images.

        Args:
            images: See :meth:`forward`.
            patch_feats: See :meth:`forward`.
            global_feats: See :meth:`forward`.
            data_samples: Data samples that the captions are written into. Defaults to None, which
                creates new ones.
            decoding: Settings of the search. Defaults to None, the settings of the model.
            pil_images: The images, for ``rerank_clip``. Defaults to None, which reads the files
                ``img_path`` of the data samples if there is such a CLIP.

        Returns:
            Data samples with ``pred_caption`` (str) and ``pred_score`` (float, its
            log-probability). With ``num_captions`` above 1 or re-ranking, ``pred_captions`` (list
            of CaptionHypothesis) holds all captions. If the neck retrieved concepts, there are
            ``pred_concept_ids`` (K,) int64 and ``pred_concept_probs`` (K,) float32; if it also
            selected patches, ``pred_affinity`` (N, K) float32 and ``pred_selected_patches`` int64.
            All tensors are on the CPU.

        Raises:
            UserError: If an input or the backbone that re-ranking needs is missing, or no caption
                can meet the constraints of ``decoding``.
        """
        decoding = decoding or self.decoding
        if decoding.is_reranked and self.backbone is None:
            raise UserError(_refusal(decoding, "for a model without a backbone that embeds texts"))
        self.check_decoding(decoding)
        patch_feats, global_feats = self._get_feats(images, patch_feats, global_feats)
        encoded = self.encode(patch_feats, global_feats, data_samples)
        captions = self.generate(encoded, decoding)
        if decoding.is_reranked and self.backbone is not None:
            captions = add_similarities(captions, global_feats, self.backbone.encode_text)
            if decoding.rerank_clip is not None:
                if pil_images is None:
                    pil_images = read_images(data_samples)
                clip = self._second_clip.load(decoding).to(global_feats.device)
                feats = encode_images(clip, pil_images)
                captions = add_similarities(captions, feats, clip.encode_text, "second_similarity")
            captions = [rerank(beams, decoding)[: decoding.num_captions] for beams in captions]
        captions = [[h._replace(caption=decoding.complete(h.caption)) for h in c] for c in captions]
        if data_samples is None:
            data_samples = [DataSample() for _ in captions]
        keep_all = decoding.num_captions > 1 or decoding.is_reranked
        attach_captions(data_samples, captions, keep_all)
        attach_mixup_info(data_samples, encoded.neck_out)
        return list(data_samples)

    def extract_feat(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the features of images by the backbone.

        Args:
            images: (B, 3, H, W), preprocessed for the backbone.

        Returns:
            Patch features (B, N, Dv) and global features (B, Dc).

        Raises:
            UserError: If there is no backbone.
        """
        if self.backbone is None:
            raise UserError(
                "the model has no backbone to encode `images`: set backbone=dict("
                "type='pcm_plugin.OpenCLIPBackbone', ...), or pass patch_feats and global_feats"
            )
        return self.backbone(images)

    def encode(
        self,
        patch_feats: Tensor | None,
        global_feats: Tensor,
        data_samples: Sequence[DataSample] | None = None,
    ) -> EncodedImages:
        """Encode the features of images.

        Args:
            patch_feats: (B, N, Dv), or None for a neck that uses only the global features.
            global_feats: (B, Dc).
            data_samples: Source of :meth:`extra_neck_inputs`. Defaults to None.
        """
        extra = self.extra_neck_inputs(data_samples, global_feats)
        neck_out = self.neck(patch_feats, global_feats, **extra)
        return EncodedImages(neck_out.tokens, neck_out.mask, neck_out)

    def extra_neck_inputs(
        self, data_samples: Sequence[DataSample] | None, global_feats: Tensor
    ) -> dict[str, Tensor]:
        """Return extra keyword arguments for the neck. The base class passes none.

        Args:
            data_samples: One per image, or None.
            global_feats: (B, Dc), on the device that the arguments must be on.
        """
        return {}

    def _get_feats(
        self, images: Tensor | None, patch_feats: Tensor | None, global_feats: Tensor | None
    ) -> tuple[Tensor | None, Tensor]:
        if images is not None:
            return self.extract_feat(images)
        if global_feats is None:
            raise UserError(
                "the captioner got no input: pass `images`, or `global_feats` and `patch_feats`"
            )
        return patch_feats, global_feats


def _refusal(decoding: DecodingConfig, where: str) -> str:
    """Return the message that the settings of re-ranking are refused."""
    if decoding.rerank == "ranks":
        return f"`rerank` must be 'sum' {where}, got `'ranks'`"
    return f"`rerank_weight` must be 0 {where}, got `{decoding.rerank_weight}`"


def _check_patches(neck: Neck, backbone: Backbone) -> None:
    """Check that the backbone's patches are of the kind that the neck takes."""
    expected, actual = neck.patches_in_joint_space, backbone.patches_in_joint_space
    if expected is not None and expected != actual:
        raise UserError(
            f"`neck.patches_in_joint_space` must be {actual} for the patches of "
            f"{backbone.model_name}, got `{expected}`: set patches_in_joint_space={actual}"
        )
