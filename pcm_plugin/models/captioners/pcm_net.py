"""PCM-Net: the captioner of the paper, and its base model."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from pcm_plugin.datasets.vocabulary import Vocabulary
from pcm_plugin.models.captioners.search import Search, rerank, search_captions
from pcm_plugin.models.necks import MixupOutput
from pcm_plugin.registry import MODELS
from pcm_plugin.structures import DataSample


@MODELS.register_module()
class PCMNet(BaseModel):
    """Captioner: [CLIP backbone] -> neck -> encoder -> sentence decoder.

    It takes features (``patch_feats`` and ``global_feats``) or, with a backbone, ``images``;
    nothing else differs between training on a feature store and captioning images.

    Every parameter of ours has a gradient in mode ``'loss'``, and the backbone has none, so that
    DDP needs no ``find_unused_parameters``; a neck, encoder or decoder that skips some of its own
    parameters would.

    The arguments ``neck``, ``encoder``, ``decoder``, ``loss`` and ``backbone`` are configs of
    registered types, or modules.

    Args:
        neck: Makes tokens from features, such as PCMMixup.
        encoder: Encodes the tokens, such as VisualSemanticEncoder.
        decoder: Writes sentences, such as SentenceDecoder. Its config may leave out
            ``vocab_size``, which then is the vocabulary's.
        vocabulary: A vocabulary, or the path of its ``vocabulary.txt``.
        loss: Compares logits and words, such as CLIPWeightedCELoss. Defaults to None, which is
            enough for inference.
        backbone: Makes features from images, such as OpenCLIPBackbone. Defaults to None.
        beam_size: Beams of the search; 1 is greedy. Defaults to 3, as released.
        max_len: Most words of a caption, the stop token included, in training and inference.
            Defaults to 20, as released.
        min_len: Fewest words of a caption. Defaults to 0, as released.
        num_captions: Captions an image, at most ``beam_size``. Defaults to 1.
        rerank: Weight of CLIP's cosine of image and caption beside the log-probability, by which
            the beams are ordered; needs a backbone. Defaults to 0, which leaves their order.
        data_preprocessor: MMEngine's; None moves batches to the model's device.
        init_cfg: MMEngine's initialisation config. Defaults to None.

    Raises:
        ValueError: If the decoder's ``vocab_size`` is not the vocabulary's, or neck, encoder and
            decoder have several widths.
    """

    def __init__(
        self,
        neck: dict | nn.Module,
        encoder: dict | nn.Module,
        decoder: dict | nn.Module,
        vocabulary: str | os.PathLike | Vocabulary,
        loss: dict | nn.Module | None = None,
        backbone: dict | nn.Module | None = None,
        beam_size: int = 3,
        max_len: int = 20,
        min_len: int = 0,
        num_captions: int = 1,
        rerank: float = 0.0,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        if not isinstance(vocabulary, Vocabulary):
            vocabulary = Vocabulary.from_file(vocabulary)
        self.vocabulary = vocabulary
        if isinstance(decoder, dict):
            decoder = {"vocab_size": len(vocabulary), **decoder}
        self.neck = _build(neck)
        self.encoder = _build(encoder)
        self.decoder = _build(decoder)
        self.loss_module = None if loss is None else _build(loss)
        self.backbone = None if backbone is None else _build(backbone)
        self.search = Search(beam_size, max_len, min_len, num_captions, rerank).check()
        if self.decoder.vocab_size != len(vocabulary):
            raise ValueError(
                f"the decoder has vocab_size={self.decoder.vocab_size} but the vocabulary has "
                f"{len(vocabulary)} indices (its words and the stop token): leave vocab_size out"
            )
        parts = {"neck": self.neck, "encoder": self.encoder, "decoder": self.decoder}
        widths = {k: part.embed_dims for k, part in parts.items() if hasattr(part, "embed_dims")}
        if len(set(widths.values())) > 1:
            raise ValueError(f"embed_dims of {widths}: give all of them one width")
        if rerank and self.backbone is None:
            raise ValueError(
                f"rerank={rerank} needs the CLIP that made the features: set backbone=dict("
                "type='pcm_plugin.OpenCLIPBackbone', ...)"
            )
        if self.backbone is not None and getattr(self.neck, "needs_clip_head", False):
            self.neck.set_clip_head(self.backbone.clip_head())

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
            ValueError: If the mode is unknown, or an input that it needs is missing.
        """
        if images is not None:
            patch_feats, global_feats = self.look(images)
        memory, mixed = self.encode(patch_feats, global_feats)
        if mode == "predict":
            return self.predict(memory, mixed, data_samples, global_feats)
        if mode not in ("tensor", "loss"):
            raise ValueError(f"mode={mode!r}: choose 'tensor', 'loss' or 'predict'")
        if data_samples is None:
            raise ValueError(f"mode={mode!r} needs data_samples with a gt_caption each")
        input_ids, target_ids = self._words(data_samples)
        input_ids = input_ids.to(memory.device)
        if mode == "tensor":
            return self.decoder(input_ids, memory, mixed.mask)
        if self.loss_module is None:
            raise ValueError("mode='loss' but the model was built without a loss: give it one")
        # Counted on the CPU, so that a GPU is not waited for.
        lengths = (target_ids >= 0).sum(1)
        logits = self.decoder(input_ids, memory, mixed.mask, lengths)
        scores = [sample.get("clip_score") for sample in data_samples]
        clip_scores = None if None in scores else memory.new_tensor(scores, dtype=torch.float32)
        return {"loss": self.loss_module(logits, target_ids.to(memory.device), clip_scores)}

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Make an image's features.

        Args:
            images: (B, 3, H, W), preprocessed for the backbone.

        Returns:
            Patch features (B, N, Dv) and global features (B, Dc).

        Raises:
            ValueError: If there is no backbone.
        """
        if self.backbone is None:
            raise ValueError(
                "images were given but the model has no backbone: set backbone=dict("
                "type='pcm_plugin.OpenCLIPBackbone', ...), or give features"
            )
        return self.backbone(images)

    def encode(
        self, patch_feats: Tensor | None, global_feats: Tensor | None
    ) -> tuple[Tensor, MixupOutput]:
        """Encode the features of images.

        Args:
            patch_feats: (B, N, Dv), or None for a neck that does without.
            global_feats: (B, Dc).

        Returns:
            Encoded tokens (B, L, D), and what the neck found; its ``mask`` tells the valid tokens.

        Raises:
            ValueError: If there are no features.
        """
        if global_feats is None:
            raise ValueError("no input: give images, or global_feats and patch_feats")
        mixed = self.neck(patch_feats, global_feats)
        return self.encoder(mixed.tokens, mixed.mask), mixed

    def predict(
        self,
        memory: Tensor,
        mixed: MixupOutput,
        data_samples: Sequence[DataSample] | None = None,
        global_feats: Tensor | None = None,
        search: Search | None = None,
    ) -> list[DataSample]:
        """Caption encoded images by beam search.

        Args:
            memory: (B, L, D), of :meth:`encode`.
            mixed: Of :meth:`encode`.
            data_samples: Where the captions are put. Defaults to None: into new ones.
            global_feats: (B, Dc), for re-ranking alone. Defaults to None.
            search: How to search. Defaults to None: as the model was built.

        Returns:
            Data samples with ``pred_caption`` (str) and ``pred_score`` (float, its
            log-probability). If several captions are asked for, or they are re-ranked, all of them
            are in ``pred_captions`` (list of Found). If the neck mixed, there are
            ``pred_concept_ids`` (K,) int64, ``pred_concept_probs`` (K,) float32, ``pred_affinity``
            (N, K) float32 and ``pred_selected_patches`` int64, on the CPU.

        Raises:
            ValueError: If a setting of the search is out of range, or re-ranking lacks its CLIP.
        """
        search = self.search if search is None else search.check()
        captions = search_captions(self.decoder, memory, mixed.mask, self.vocabulary, search)
        if search.rerank:
            if self.backbone is None or global_feats is None:
                raise ValueError(
                    f"rerank={search.rerank} needs a backbone that embeds texts, and global_feats"
                )
            captions = rerank(captions, global_feats, self.backbone.encode_text, search)
        samples = [DataSample() for _ in memory] if data_samples is None else list(data_samples)
        for sample, found in zip(samples, captions, strict=True):
            sample.pred_caption, sample.pred_score = found[0].caption, found[0].log_prob
            if search.num_captions > 1 or search.rerank:
                sample.set_field(found, "pred_captions")
        if mixed.concept_ids is not None:
            # What is not None goes together.
            parts = (mixed.concept_ids, mixed.concept_probs, mixed.affinity, mixed.selected)
            columns = zip(*(part.cpu() for part in parts if part is not None), strict=True)
            for sample, (concepts, probs, affinity, selected) in zip(samples, columns, strict=True):
                sample.pred_concept_ids, sample.pred_concept_probs = concepts, probs
                sample.pred_affinity = affinity
                sample.pred_selected_patches = selected.nonzero().flatten()
        return samples

    def _words(self, data_samples: Sequence[DataSample]) -> tuple[Tensor, Tensor]:
        captions = [sample.get("gt_caption") for sample in data_samples]
        for caption in captions:
            if not isinstance(caption, str):
                raise ValueError(
                    f"gt_caption={caption!r}: training needs one sentence (str) a sample; "
                    "the dataset gives that with test_mode=False"
                )
        return self.vocabulary.encode_batch(captions, self.search.max_len)


def _build(module: dict | nn.Module) -> Any:
    return module if isinstance(module, nn.Module) else MODELS.build(module)
