"""What all captioners of ours share: their inputs, their modes, and what they return."""

from abc import ABCMeta, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.formats.required_file import ReadsFiles
from pcm_plugin.models.building import build_module
from pcm_plugin.models.decoding.search import Found, Search, rerank
from pcm_plugin.models.necks import NeckOutput
from pcm_plugin.registry import MODELS
from pcm_plugin.structures import DataSample


class Captioner(BaseModel, ReadsFiles, metaclass=ABCMeta):
    """Base of a captioner: [CLIP backbone] -> neck -> what writes sentences.

    It takes features (``patch_feats`` and ``global_feats``) or, with a backbone, ``images``;
    nothing else differs between training on a feature store and captioning images. A system says
    how it writes: :meth:`teach` and :meth:`write`, and :meth:`encode` if there is an encoder.

    The arguments ``neck``, ``loss`` and ``backbone`` are configs of registered types, or modules.

    Args:
        neck: Makes tokens from features, such as PCMMixup.
        loss: Compares logits and words, such as CLIPWeightedCELoss; None is enough for inference.
        backbone: Makes features from images, such as OpenCLIPBackbone; or None.
        search: How captions are searched.
        data_preprocessor: MMEngine's; None moves batches to the model's device.
        init_cfg: MMEngine's initialisation config.

    Raises:
        UserError: If a setting of the search is out of range, re-ranking lacks its backbone, or
            neck and backbone disagree on whether patches are in the joint space.
    """

    def __init__(
        self,
        neck: dict | nn.Module,
        loss: dict | nn.Module | None,
        backbone: dict | nn.Module | None,
        search: Search,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.neck = build_module(neck)
        self.loss_module = None if loss is None else build_module(loss)
        self.backbone = None if backbone is None else build_module(backbone)
        self.search = search.check()
        if search.rerank and self.backbone is None:
            raise UserError(
                f"rerank={search.rerank} needs the CLIP that made the features: set backbone=dict("
                "type='pcm_plugin.OpenCLIPBackbone', ...)"
            )
        if self.backbone is not None:
            _check_patches(self.neck, self.backbone)
        if self.backbone is not None and getattr(self.neck, "needs_clip_head", False):
            self.neck.set_clip_head(self.backbone.clip_head())

    @abstractmethod
    def teach(
        self, memory: Tensor, mixed: NeckOutput, captions: list[str], packed: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Logits of given captions (teacher forcing).

        Args:
            memory: (B, L, D), of :meth:`encode`.
            mixed: Of :meth:`encode`.
            captions: B sentences.
            packed: Whether only the words that are targets are wanted. Defaults to False.

        Returns:
            Logits (B, T, V), or (n, V) if ``packed``; and the targets (B, T) int64, -1 where there
            is no word.
        """

    @abstractmethod
    def write(self, memory: Tensor, mixed: NeckOutput, search: Search) -> list[list[Found]]:
        """Search the captions of encoded images.

        Args:
            memory: (B, L, D), of :meth:`encode`.
            mixed: Of :meth:`encode`.
            search: How.

        Returns:
            The captions of each image, likeliest first: ``num_captions``, or all beams where they
            are still to be re-ranked.
        """

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
            images: (B, 3, H, W), preprocessed for the backbone. Given instead of features.
            patch_feats: (B, N, Dv), CLIP's last hidden states before ``ln_post``.
            global_feats: (B, Dc), CLIP's image embedding.
            data_samples: One an image. Modes ``'loss'`` and ``'tensor'`` read ``gt_caption`` (str),
                ``'loss'`` also ``clip_score`` (float) if the loss weights pairs.
            mode: ``'tensor'``, ``'loss'`` or ``'predict'``.

        Returns:
            - ``'tensor'``: logits (B, T, V) of the given captions (teacher forcing);
            - ``'loss'``: ``{'loss': scalar}``;
            - ``'predict'``: the data samples, or new ones, with the fields of :meth:`predict`.

        Raises:
            UserError: If the mode is unknown, or an input that it needs is missing.
        """
        if images is not None:
            patch_feats, global_feats = self.look(images)
        memory, mixed = self.encode(patch_feats, global_feats, data_samples)
        if mode == "predict":
            return self.predict(memory, mixed, data_samples, global_feats)
        if mode not in ("tensor", "loss"):
            raise UserError(f"mode={mode!r}: choose 'tensor', 'loss' or 'predict'")
        if data_samples is None:
            raise UserError(f"mode={mode!r} needs data_samples with a gt_caption each")
        captions = read_captions(data_samples)
        if mode == "tensor":
            return self.teach(memory, mixed, captions)[0]
        if self.loss_module is None:
            raise UserError("mode='loss' but the model was built without a loss: give it one")
        logits, targets = self.teach(memory, mixed, captions, packed=True)
        return {"loss": self.loss_module(logits, targets, clip_scores(data_samples, memory))}

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Make an image's features.

        Args:
            images: (B, 3, H, W), preprocessed for the backbone.

        Returns:
            Patch features (B, N, Dv) and global features (B, Dc).

        Raises:
            UserError: If there is no backbone.
        """
        if self.backbone is None:
            raise UserError(
                "images were given but the model has no backbone: set backbone=dict("
                "type='pcm_plugin.OpenCLIPBackbone', ...), or give features"
            )
        return self.backbone(images)

    def encode(
        self,
        patch_feats: Tensor | None,
        global_feats: Tensor | None,
        data_samples: Sequence[DataSample] | None = None,
    ) -> tuple[Tensor, NeckOutput]:
        """Encode the features of images.

        Args:
            patch_feats: (B, N, Dv), or None for a neck that does without.
            global_feats: (B, Dc).
            data_samples: What else is known of the images, for systems that use it. Defaults to
                None.

        Returns:
            Encoded tokens (B, L, D), and what the neck found; its ``mask`` tells the valid tokens.

        Raises:
            UserError: If there are no features.
        """
        if global_feats is None:
            raise UserError("no input: give images, or global_feats and patch_feats")
        mixed = self.neck(patch_feats, global_feats, **self.known(data_samples, global_feats))
        return mixed.tokens, mixed

    def known(
        self, data_samples: Sequence[DataSample] | None, global_feats: Tensor
    ) -> dict[str, Tensor]:
        """What else the neck is told of the images, by the names of its arguments: nothing.

        Args:
            data_samples: One an image, or None.
            global_feats: (B, Dc), on whose device it is wanted.
        """
        return {}

    def predict(
        self,
        memory: Tensor,
        mixed: NeckOutput,
        data_samples: Sequence[DataSample] | None = None,
        global_feats: Tensor | None = None,
        search: Search | None = None,
    ) -> list[DataSample]:
        """Caption encoded images.

        Args:
            memory: (B, L, D), of :meth:`encode`.
            mixed: Of :meth:`encode`.
            data_samples: Where the captions are put. Defaults to None: into new ones.
            global_feats: (B, Dc), for re-ranking alone. Defaults to None.
            search: How to search. Defaults to None: as the model was built.

        Returns:
            Data samples with ``pred_caption`` (str) and ``pred_score`` (float, its
            log-probability). If several captions are asked for, or they are re-ranked, all of them
            are in ``pred_captions`` (list of Found). If the neck found concepts, there are
            ``pred_concept_ids`` (K,) int64 and ``pred_concept_probs`` (K,) float32; if it mixed
            patches too, ``pred_affinity`` (N, K) float32 and ``pred_selected_patches`` int64, all
            on the CPU.

        Raises:
            UserError: If a setting of the search is out of range, or re-ranking lacks its CLIP.
        """
        search = self.search if search is None else search.check()
        captions = self.write(memory, mixed, search)
        if search.rerank:
            if self.backbone is None or global_feats is None:
                raise UserError(
                    f"rerank={search.rerank} needs a backbone that embeds texts, and global_feats"
                )
            captions = rerank(captions, global_feats, self.backbone.encode_text, search)
        samples = [DataSample() for _ in memory] if data_samples is None else list(data_samples)
        for sample, found in zip(samples, captions, strict=True):
            sample.pred_caption, sample.pred_score = found[0].caption, found[0].log_prob
            if search.num_captions > 1 or search.rerank:
                sample.set_field(found, "pred_captions")
        self._note(samples, mixed)
        return samples

    def _note(self, samples: Sequence[DataSample], mixed: NeckOutput) -> None:
        """Write into data samples what the neck found."""
        if mixed.concept_ids is not None and mixed.concept_probs is not None:
            rows = zip(mixed.concept_ids.cpu(), mixed.concept_probs.cpu(), strict=True)
            for sample, (ids, probs) in zip(samples, rows, strict=True):
                there = ids >= 0
                sample.pred_concept_ids, sample.pred_concept_probs = ids[there], probs[there]
        if mixed.affinity is not None and mixed.selected is not None:
            maps = zip(mixed.affinity.cpu(), mixed.selected.cpu(), strict=True)
            for sample, (affinity, selected) in zip(samples, maps, strict=True):
                sample.pred_affinity = affinity
                sample.pred_selected_patches = selected.nonzero().flatten()


def assert_is_captioner(settings: Mapping[str, Any]) -> None:
    """Refuse a model that is none of these captioners, before it is built.

    Args:
        settings: Config of the model.

    Raises:
        UserError: If it is another, such as mmpretrain's BLIP; says how to caption with that.
    """
    kind = MODELS.get(settings["type"])
    if isinstance(kind, type) and not issubclass(kind, Captioner):
        raise UserError(
            f"model.type={settings['type']!r} is no captioner on CLIP's features: caption with "
            "tools/test.py CONFIG CHECKPOINT --cfg-options test_evaluator.outfile=captions.json"
        )


def clip_scores(data_samples: Sequence[DataSample], like: Tensor) -> Tensor | None:
    """The CLIP scores of pairs: (B,) float32 on the device of ``like``; None if one has none."""
    scores = [sample.get("clip_score") for sample in data_samples]
    return None if None in scores else like.new_tensor(scores, dtype=torch.float32)


def _check_patches(neck: nn.Module, backbone: nn.Module) -> None:
    """See that patches come as the neck takes them; one that mixes nothing takes all."""
    if getattr(neck, "mix", "none") == "none":
        return
    taken, given = (getattr(part, "patches_in_joint_space", False) for part in (neck, backbone))
    if taken != given:
        name = getattr(backbone, "model_name", type(backbone).__name__)
        raise UserError(
            f"the neck has patches_in_joint_space={taken}, but patches of {name} are "
            f"{'' if given else 'not '}in the joint space: set patches_in_joint_space={given}"
        )


def read_captions(data_samples: Sequence[DataSample]) -> list[str]:
    """Return the training captions of data samples.

    Raises:
        UserError: If one has none, or several.
    """
    captions = [sample.get("gt_caption") for sample in data_samples]
    for caption in captions:
        if not isinstance(caption, str):
            raise UserError(
                f"gt_caption={caption!r}: training needs one sentence (str) a sample; "
                "the dataset gives that with test_mode=False"
            )
    return captions
