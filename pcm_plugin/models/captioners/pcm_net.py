"""PCM-Net: the captioner of the paper, and its base model."""

import os
from collections.abc import Sequence

from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.formats.required_file import FileKind
from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.models.building import build_module
from pcm_plugin.models.captioners.base import Captioner
from pcm_plugin.models.decoding.search import Found, Search, search_captions
from pcm_plugin.models.necks import NeckOutput
from pcm_plugin.registry import MODELS
from pcm_plugin.structures import DataSample


@MODELS.register_module()
class PCMNet(Captioner):
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
        encoder: Encodes the tokens, such as VisualSemanticEncoder; None hands them on.
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
        length_penalty: Power of the caption's length by which its log-probability is divided for
            ranking: 0 ranks by the sum of log-probabilities, as released, 1 by their mean per word.
            Defaults to 0.
        data_preprocessor: MMEngine's; None moves batches to the model's device.
        init_cfg: MMEngine's initialisation config. Defaults to None.

    Raises:
        UserError: If the decoder's ``vocab_size`` is not the vocabulary's, or neck, encoder and
            decoder have several widths.
    """

    input_files = {"vocabulary": FileKind.VOCABULARY}

    def __init__(
        self,
        neck: dict | nn.Module,
        encoder: dict | nn.Module | None,
        decoder: dict | nn.Module,
        vocabulary: str | os.PathLike | Vocabulary,
        loss: dict | nn.Module | None = None,
        backbone: dict | nn.Module | None = None,
        beam_size: int = 3,
        max_len: int = 20,
        min_len: int = 0,
        num_captions: int = 1,
        rerank: float = 0.0,
        length_penalty: float = 0.0,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        search = Search(beam_size, max_len, min_len, num_captions, rerank, length_penalty)
        if not isinstance(vocabulary, Vocabulary):
            vocabulary = Vocabulary.from_file(vocabulary)
        super().__init__(neck, loss, backbone, search, data_preprocessor, init_cfg)
        self.vocabulary = vocabulary
        if isinstance(decoder, dict):
            decoder = {"vocab_size": len(vocabulary), **decoder}
        self.encoder = None if encoder is None else build_module(encoder)
        self.decoder = build_module(decoder)
        if self.decoder.vocab_size != len(vocabulary):
            raise UserError(
                f"the decoder has vocab_size={self.decoder.vocab_size} but the vocabulary has "
                f"{len(vocabulary)} indices (its words and the stop token): leave vocab_size out"
            )
        parts = {"neck": self.neck, "encoder": self.encoder, "decoder": self.decoder}
        widths = {k: part.embed_dims for k, part in parts.items() if hasattr(part, "embed_dims")}
        if len(set(widths.values())) > 1:
            raise UserError(f"embed_dims of {widths}: give all of them one width")

    def encode(
        self,
        patch_feats: Tensor | None,
        global_feats: Tensor | None,
        data_samples: Sequence[DataSample] | None = None,
    ) -> tuple[Tensor, NeckOutput]:
        """See :meth:`Captioner.encode`."""
        tokens, mixed = super().encode(patch_feats, global_feats, data_samples)
        return (tokens if self.encoder is None else self.encoder(tokens, mixed.mask)), mixed

    def teach(
        self, memory: Tensor, mixed: NeckOutput, captions: list[str], packed: bool = False
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Captioner.teach`."""
        input_ids, target_ids = self.vocabulary.encode_batch(captions, self.search.max_len)
        # Counted on the CPU, so that a GPU is not waited for.
        lengths = (target_ids >= 0).sum(1) if packed else None
        logits = self.decoder(input_ids.to(memory.device), memory, mixed.mask, lengths)
        return logits, target_ids.to(memory.device)

    def write(self, memory: Tensor, mixed: NeckOutput, search: Search) -> list[list[Found]]:
        """See :meth:`Captioner.write`."""
        return search_captions(self.decoder, memory, mixed.mask, self.vocabulary, search)
