"""PCM-Net, the captioner of the paper, and its base model."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.formats.caption_vocabulary import CaptionVocabulary
from pcm_plugin.formats.required_file import FileKind
from pcm_plugin.formats.vocabulary_file import load_vocabulary, vocabulary_from_json
from pcm_plugin.models.backbones import Backbone
from pcm_plugin.models.building import build_module
from pcm_plugin.models.captioners.base import Captioner
from pcm_plugin.models.captioners.encoded_images import EncodedImages
from pcm_plugin.models.decoding.config import DecodingConfig
from pcm_plugin.models.decoding.hypothesis import CaptionHypothesis
from pcm_plugin.models.decoding.search import search_captions
from pcm_plugin.models.decoding.vocabulary_constraints import vocabulary_constraints
from pcm_plugin.models.necks import Neck
from pcm_plugin.registry import MODELS
from pcm_plugin.structures import DataSample


@MODELS.register_module()
class PCMNet(Captioner):
    """Captioner: [CLIP backbone] -> neck -> encoder -> sentence decoder.

    The input is features (``patch_feats`` and ``global_feats``) or, with a backbone, ``images``.
    Nothing else differs between training on a feature store and captioning images.

    Every trainable parameter gets a gradient in mode ``'loss'``, so that DDP needs no
    ``find_unused_parameters``. This does not hold with a neck, encoder or decoder that leaves some
    of its parameters unused.

    The arguments ``neck``, ``encoder``, ``decoder``, ``loss`` and ``backbone`` are modules or
    configs of registered types.

    Args:
        neck: Computes tokens from features, such as PCMMixup.
        encoder: Encodes the tokens, such as VisualSemanticEncoder. None passes them on.
        decoder: Text decoder, such as SentenceDecoder. Its config may omit ``vocab_size``, which
            defaults to the size of the vocabulary.
        vocabulary: A vocabulary, or the path of its file, see :func:`.load_vocabulary`.
        loss: Compares logits and targets, such as CLIPWeightedCELoss. Defaults to None, which is
            enough for inference.
        backbone: Computes features from images, such as OpenCLIPBackbone. Defaults to None.
        decoding: Settings of :class:`.DecodingConfig` that differ from its defaults
            (``beam_size=3`` and ``max_len=20``, as in the released code). ``max_len`` also applies
            in training. Defaults to None.
        data_preprocessor: MMEngine's data preprocessor. None moves batches to the model's device.
        init_cfg: MMEngine's initialization config. Defaults to None.

    Raises:
        UserError: If the decoder's ``vocab_size`` is not that of the vocabulary, or neck, encoder
            and decoder differ in width.
    """

    input_files = {"vocabulary": FileKind.VOCABULARY}

    def __init__(
        self,
        neck: dict | Neck,
        encoder: dict | nn.Module | None,
        decoder: dict | nn.Module,
        vocabulary: str | os.PathLike | CaptionVocabulary,
        loss: dict | nn.Module | None = None,
        backbone: dict | Backbone | None = None,
        decoding: Mapping[str, Any] | DecodingConfig | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if not isinstance(vocabulary, CaptionVocabulary):
            vocabulary = load_vocabulary(vocabulary)
        super().__init__(neck, loss, backbone, decoding, data_preprocessor, init_cfg)
        self.vocabulary = vocabulary
        if isinstance(decoder, dict):
            decoder = {"vocab_size": len(vocabulary), **decoder}
        self.encoder = None if encoder is None else build_module(encoder)
        self.decoder = build_module(decoder)
        if self.decoder.vocab_size != len(vocabulary):
            raise UserError(
                f"`decoder.vocab_size` must be {len(vocabulary)}, the {vocabulary.unit} of the "
                f"vocabulary and the end token, got `{self.decoder.vocab_size}`: omit vocab_size"
            )
        widths = {"neck": self.neck.embed_dims}
        if self.encoder is not None:
            widths["encoder"] = self.encoder.embed_dims
        widths["decoder"] = self.decoder.embed_dims
        if len(set(widths.values())) > 1:
            raise UserError(
                f"`embed_dims` of neck, encoder and decoder must be equal, got `{widths}`"
            )

    def file_values(self) -> dict[str, Any]:
        """Return the vocabulary; see :meth:`.Captioner.file_values`."""
        return {"vocabulary": self.vocabulary.to_json()}

    @classmethod
    def file_arguments(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the vocabulary; see :meth:`.Captioner.file_arguments`."""
        return {"vocabulary": vocabulary_from_json(values["vocabulary"])}

    def encode(
        self,
        patch_feats: Tensor | None,
        global_feats: Tensor,
        data_samples: Sequence[DataSample] | None = None,
    ) -> EncodedImages:
        """Encode the features of images; see :meth:`.Captioner.encode`."""
        encoded = super().encode(patch_feats, global_feats, data_samples)
        if self.encoder is None:
            return encoded
        tokens = self.encoder(encoded.encoder_out, encoded.mask)  # (B, L, D)
        return encoded._replace(encoder_out=tokens)

    def forward_decoder(
        self, encoded: EncodedImages, captions: list[str], packed: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Compute the logits of given captions; see :meth:`.Captioner.forward_decoder`."""
        input_ids, target_ids = self.vocabulary.encode_batch(captions, self.decoding.max_len)
        # Lengths are counted on the CPU, which avoids waiting for the GPU.
        lengths = (target_ids >= 0).sum(1) if packed else None  # (B,)
        device = encoded.encoder_out.device
        logits = self.decoder(input_ids.to(device), encoded.encoder_out, encoded.mask, lengths)
        return logits, target_ids.to(device)

    def check_decoding(self, decoding: DecodingConfig) -> None:
        """Check settings of the search; see :meth:`.Captioner.check_decoding`."""
        vocabulary_constraints(self.vocabulary, decoding)

    def generate(
        self, encoded: EncodedImages, decoding: DecodingConfig
    ) -> list[list[CaptionHypothesis]]:
        """Generate captions by beam search; see :meth:`.Captioner.generate`."""
        return search_captions(
            self.decoder, encoded.encoder_out, encoded.mask, self.vocabulary, decoding
        )
