"""Captioner with a causal language model that continues a prefix, as in ClipCap and ViECap."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.formats.caption_vocabulary import IGNORE_INDEX
from pcm_plugin.formats.required_file import FileKind
from pcm_plugin.models.backbones import Backbone
from pcm_plugin.models.building import build_module
from pcm_plugin.models.captioners.base import Captioner
from pcm_plugin.models.captioners.encoded_images import EncodedImages
from pcm_plugin.models.captioners.samples import read_captions
from pcm_plugin.models.decoders.causal_lm import LanguageModel, load_language_model
from pcm_plugin.models.decoding.caption_form import find_full_stops, to_phrase, to_sentence
from pcm_plugin.models.decoding.config import DecodingConfig
from pcm_plugin.models.decoding.hypothesis import CaptionHypothesis, collect_captions
from pcm_plugin.models.decoding.prefix_continuation import continue_prefix
from pcm_plugin.models.decoding.search import search
from pcm_plugin.models.functional.constrained_search import WordConstraints, check_constraints
from pcm_plugin.models.necks import EntityPrompt, Neck
from pcm_plugin.registry import MODELS
from pcm_plugin.structures import DataSample


@MODELS.register_module()
class PrefixCaptioner(Captioner):
    """Captioner: [CLIP backbone] -> neck -> [encoder] -> mapper -> prefix -> language model.

    A causal language model of transformers continues a soft prefix and a prompt. The mapper
    computes the prefix from the tokens of the neck, and the prompt names the concepts of the image.
    With GlobalPrefix on features of captions this is ViECap (Fei et al. 2023); with PCMMixup it is
    ViECap with PCM (paper, Table 3). With PCMMixup, VisualSemanticEncoder and MLPPrefixMapper the
    prefix is computed as in the ``MapperEncoder`` of PCM-Net's released code.

    The language model must be like GPT-2: its logits are the output embeddings of the last hidden
    state.

    The arguments ``neck``, ``encoder``, ``mapper``, ``entity_prompt``, ``loss`` and ``backbone``
    are modules or configs of registered types.

    Args:
        neck: Computes tokens from features, such as GlobalPrefix or PCMMixup.
        mapper: Computes the prefix from tokens, such as PrefixMapper or MLPPrefixMapper. Its config
            may omit ``out_dims``, which defaults to the width of the language model.
        language_model: Folder of a causal language model, a name that transformers finds, or the
            model with its tokenizer.
        encoder: Encodes the tokens before the mapper, such as VisualSemanticEncoder. Defaults to
            None, which passes them on.
        pretrained: Whether to load the weights of a language model that is a folder or a name,
            instead of random ones. Defaults to True.
        freeze_lm: Whether to train only the neck, the encoder and the mapper, as ClipCap's
            Transformer variant does. Defaults to False, as in ViECap's released code.
        entity_prompt: Prompt between prefix and caption, an EntityPrompt. Its config may omit
            ``clip_dim``, which defaults to that of the neck. Defaults to None, no prompt.
        full_sentences: Whether captions are full sentences, as in ViECap's released code: they
            start with a capital letter, directly after the prompt, and end with a full stop, at
            which generation stops. Otherwise they end with the end-of-text token. Generated
            captions are returned without the full stop. Defaults to False.
        loss: Compares logits and targets, such as CLIPWeightedCELoss. Defaults to None, which is
            enough for inference.
        backbone: Computes features from images, such as OpenCLIPBackbone. Defaults to None.
        decoding: Settings of :class:`.DecodingConfig` that differ from ``beam_size=5``, as in
            ViECap's released code, and ``max_len=30``, our choice. ``max_len`` also applies in
            training. Defaults to None.
        data_preprocessor: MMEngine's data preprocessor. None moves batches to the model's device.
        init_cfg: MMEngine's initialization config. Defaults to None.

    Raises:
        MissingFileError: If the language model or one of its files is missing.
        UserError: If neck, encoder, mapper and language model differ in width, or the tokenizer has
            no full stop for ``full_sentences``.
    """

    default_decoding = DecodingConfig(beam_size=5, max_len=30)
    input_files = {"language_model": FileKind.LANGUAGE_MODEL}

    def __init__(
        self,
        neck: dict | Neck,
        mapper: dict | nn.Module,
        language_model: str | LanguageModel,
        encoder: dict | nn.Module | None = None,
        pretrained: bool = True,
        freeze_lm: bool = False,
        entity_prompt: dict | EntityPrompt | None = None,
        full_sentences: bool = False,
        loss: dict | nn.Module | None = None,
        backbone: dict | Backbone | None = None,
        decoding: Mapping[str, Any] | DecodingConfig | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(neck, loss, backbone, decoding, data_preprocessor, init_cfg)
        if not isinstance(language_model, LanguageModel):
            language_model = load_language_model(language_model, pretrained)
        self.tokenizer, self.lm = language_model
        self.full_sentences = full_sentences
        # Tokens that end a caption. The first one is the target in training.
        self.stop_ids: list[int] = [self.tokenizer.eos_token_id]
        if full_sentences:
            self.stop_ids = find_full_stops(self.tokenizer)
        self._max_positions: int | None = getattr(self.lm.config, "max_position_embeddings", None)
        width = self.lm.get_input_embeddings().embedding_dim
        if isinstance(mapper, dict):
            mapper = {"out_dims": width, **mapper}
        self.mapper = build_module(mapper)
        self.encoder = None if encoder is None else build_module(encoder)
        if self.mapper.out_dims != width or self.mapper.embed_dims != self.neck.embed_dims:
            raise UserError(
                f"`mapper` must map the neck's embed_dims={self.neck.embed_dims} to the language "
                f"model's {width}, got `embed_dims={self.mapper.embed_dims}` and "
                f"`out_dims={self.mapper.out_dims}`: set embed_dims and omit out_dims"
            )
        if self.encoder is not None and self.encoder.embed_dims != self.neck.embed_dims:
            raise UserError(
                f"`encoder.embed_dims` must be the neck's {self.neck.embed_dims}, got "
                f"`{self.encoder.embed_dims}`: set one width for neck, encoder and mapper"
            )
        self.freeze_lm = freeze_lm
        self.lm.requires_grad_(not freeze_lm)
        if isinstance(entity_prompt, dict):
            entity_prompt = {"clip_dim": self.neck.clip_dim, **entity_prompt}
        self.entity_prompt: EntityPrompt | None = (
            None if entity_prompt is None else build_module(entity_prompt)
        )

    def train(self, mode: bool = True) -> "PrefixCaptioner":
        """Set the training mode; a frozen language model stays in evaluation mode."""
        super().train(mode)
        if self.freeze_lm:
            self.lm.eval()
        return self

    def file_values(self) -> dict[str, Any]:
        """Return language model and entities; see :meth:`.Captioner.file_values`."""
        entities = [] if self.entity_prompt is None else self.entity_prompt.concepts.words
        model = LanguageModel(self.tokenizer, self.lm)
        return {"language_model": model.to_json(), "entities": entities}

    @classmethod
    def file_arguments(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the language model; see :meth:`.Captioner.file_arguments`."""
        return {"language_model": LanguageModel.from_json(values["language_model"])}

    def extra_tensors(self) -> dict[str, Tensor]:
        """Return also the embeddings of the entities; see :meth:`.Captioner.extra_tensors`."""
        bank = None if self.entity_prompt is None else self.entity_prompt.concepts
        entities = {} if bank is None or not bank.words else {"entities": bank.embeddings}
        return {**super().extra_tensors(), **entities}

    def set_extra_tensors(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Set also the entities; see :meth:`.Captioner.set_extra_tensors`."""
        super().set_extra_tensors(tensors, values)
        if self.entity_prompt is not None and "entities" in tensors:
            self.entity_prompt.concepts.set_concepts(values["entities"], tensors["entities"])

    def encode(
        self,
        patch_feats: Tensor | None,
        global_feats: Tensor,
        data_samples: Sequence[DataSample] | None = None,
    ) -> EncodedImages:
        """Compute the sequence that the language model continues; see :meth:`.Captioner.encode`.

        Returns:
            Encoder output (B, P + T, E), P prefix embeddings, then the embedded prompt of up to T
            tokens. Shorter prompts are padded on the left, and the padding is masked.

        Raises:
            UserError: If prompts need captions and there are none.
        """
        neck_out = super().encode(patch_feats, global_feats, data_samples).neck_out
        tokens, mask = neck_out.tokens, neck_out.mask  # (B, L, D), (B, L)
        if self.encoder is not None:
            tokens = self.encoder(tokens, mask)
        prefix = self.mapper(tokens, mask)  # (B, P, E)
        mask = torch.ones(prefix.shape[:2], dtype=torch.bool, device=prefix.device)  # (B, P)
        if self.entity_prompt is not None:
            ids, prompt_mask = self._tokenize_prompts(global_feats, data_samples)  # (B, T)
            prompt = self._embed(ids).to(prefix.dtype)  # (B, T, E)
            prefix = torch.cat([prefix, prompt], dim=1)  # (B, P + T, E)
            mask = torch.cat([mask, prompt_mask], dim=1)  # (B, P + T)
        return EncodedImages(prefix, mask, neck_out)

    def _tokenize_prompts(
        self, global_feats: Tensor, data_samples: Sequence[DataSample] | None
    ) -> tuple[Tensor, Tensor]:
        """Return the token ids (B, T) int64 of the prompts and their mask (B, T) bool."""
        device = global_feats.device
        prompts = [self._tokenize(text) for text in self._prompts(global_feats, data_samples)]
        longest = max(map(len, prompts))
        padding = [longest - len(ids) for ids in prompts]
        end = self.tokenizer.eos_token_id
        rows = [[end] * pad + ids for pad, ids in zip(padding, prompts, strict=True)]
        start = torch.tensor(padding, device=device).unsqueeze(1)  # (B, 1)
        mask = torch.arange(longest, device=device) >= start  # (B, T)
        return torch.tensor(rows, device=device), mask

    def _prompts(
        self, global_feats: Tensor, data_samples: Sequence[DataSample] | None
    ) -> list[str]:
        assert self.entity_prompt is not None
        if not (self.training and self.entity_prompt.reads_captions):
            return self.entity_prompt(global_feats)
        if data_samples is None:
            raise UserError(
                "`data_samples` must have a gt_caption each in training, got `None`: prompts name "
                "the entities of captions (caption_entities=None names concepts of the images)"
            )
        return self.entity_prompt.from_captions(read_captions(data_samples))

    def forward_decoder(
        self, encoded: EncodedImages, captions: list[str], packed: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Compute the logits of given captions; see :meth:`.Captioner.forward_decoder`.

        Raises:
            UserError: If prefix, prompt and caption exceed the positions of the language model.
        """
        max_len = self.decoding.max_len
        self._check_length(encoded, max_len)
        to_form = to_sentence if self.full_sentences else to_phrase
        rows = [
            [*self._tokenize(to_form(caption))[: max_len - 1], self.stop_ids[0]]
            for caption in captions
        ]
        longest = max(map(len, rows))
        targets = torch.tensor(
            [ids + [IGNORE_INDEX] * (longest - len(ids)) for ids in rows]
        )  # (B, T)
        logits = self._forward_lm(encoded.encoder_out, encoded.mask, targets, packed)
        return logits, targets.to(logits.device)

    def check_decoding(self, decoding: DecodingConfig) -> None:
        """Check settings of the search; see :meth:`.Captioner.check_decoding`."""
        self._constraints(decoding)

    def _constraints(self, decoding: DecodingConfig) -> WordConstraints | None:
        """Return the constraints in tokens, or None if there are none.

        Excluded phrases are excluded with and without a capital letter, and at the start without
        the space before them, since each of these has other tokens.

        Raises:
            UserError: If a required word has no tokens, an excluded one ends captions, or the
                constraints cannot be met.
        """
        if not decoding.has_constraints:
            return None
        to_form = to_sentence if self.full_sentences else to_phrase
        exclude = {
            tuple(self._tokenize(space + form))
            for text in decoding.exclude
            for form in (text, text[:1].upper() + text[1:])
            for space in ("", " ")
        }
        if {(token,) for token in self.stop_ids} & exclude:
            raise UserError(
                f"`exclude` must not contain what ends captions, got `{list(decoding.exclude)}`: "
                "leave out the full stop"
            )
        constraints = WordConstraints(
            self._required(decoding.start, to_form) if decoding.start else (),
            tuple(self._required(text, to_phrase) for text in decoding.include),
            # The language model cannot generate words without tokens.
            tuple(sorted(ids for ids in exclude if ids and self.tokenizer.unk_token_id not in ids)),
            self._continuations,
        )
        check_constraints(constraints, decoding.max_len)
        return constraints

    def _required(self, text: str, to_form: Callable[[str], str]) -> tuple[int, ...]:
        ids = tuple(self._tokenize(to_form(text)))
        unknown = self.tokenizer.unk_token_id
        # GPT-2's unknown token is the end of text, which no text contains.
        if not ids or unknown in ids:
            raise UserError(
                f"the captioner cannot generate {text!r}: its tokenizer does not know all of the "
                "words; use others"
            )
        return ids

    @cached_property
    def _continuations(self) -> frozenset[int]:
        """Tokens that continue the word before them."""
        [*_, word] = self._tokenize(" a")
        length = len(self.tokenizer.decode([word]))
        following = (self.tokenizer.decode([word, i])[length:] for i in range(len(self.tokenizer)))
        return frozenset(i for i, text in enumerate(following) if text[:1].isalnum())

    @torch.no_grad()
    def generate(
        self, encoded: EncodedImages, decoding: DecodingConfig
    ) -> list[list[CaptionHypothesis]]:
        """Generate captions by beam search; see :meth:`.Captioner.generate`.

        Raises:
            UserError: If prefix, prompt and caption exceed the positions of the language model.
        """
        self._check_length(encoded, decoding.max_len)
        prefix = encoded.encoder_out
        output = search(
            continue_prefix(self.lm, prefix, encoded.mask, decoding.min_len, self.stop_ids),
            len(prefix),
            decoding,
            self._constraints(decoding),
            self.stop_ids,
            prefix.device,
        )
        return collect_captions(output, self._decode, decoding)

    def _decode(self, ids: list[int]) -> str:
        """Return the text of a caption without its stop token."""
        ends = [i for i, token in enumerate(ids) if token in self.stop_ids]
        text = self.tokenizer.decode(ids[: ends[0]] if ends else ids, skip_special_tokens=True)
        return " ".join(text.split())

    def _forward_lm(
        self, prefix: Tensor, mask: Tensor, targets: Tensor, packed: bool = False
    ) -> Tensor:
        """Compute the logits of captions after their prefixes.

        Args:
            prefix: (B, P, E).
            mask: (B, P) bool.
            targets: (B, T) int64, -1 for padding.
            packed: Whether to compute the logits of the n targets that are not -1 only.

        Returns:
            (B, T, V), or (n, V) if ``packed``.
        """
        ids = targets[:, :-1].clamp(min=0).to(prefix.device)  # (B, T - 1)
        inputs = torch.cat([prefix, self._embed(ids).to(prefix.dtype)], dim=1)  # (B, P + T - 1, E)
        # The padding after a caption needs no mask: no token of the caption attends to it.
        mask = F.pad(mask, (0, ids.shape[1]), value=True)  # (B, P + T - 1)
        hidden = self.lm.base_model(
            inputs_embeds=inputs,
            attention_mask=mask.long(),
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
        ).last_hidden_state[:, prefix.shape[1] - 1 :]  # (B, T, E)
        if packed:
            # In training the targets are on the CPU, so that this does not wait for a GPU.
            rows = (targets.flatten() >= 0).nonzero().flatten().to(prefix.device)  # (n,)
            hidden = hidden.flatten(0, 1)[rows]  # (n, E)
        return self.lm.get_output_embeddings()(hidden)

    def _check_length(self, encoded: EncodedImages, max_len: int) -> None:
        length, limit = encoded.encoder_out.shape[1] + max_len - 1, self._max_positions
        if limit is not None and length > limit:
            raise UserError(
                f"prefix, prompt and max_len={max_len} must fit into the language model's {limit} "
                f"positions, got `{length}`: lower max_len, prefix_length or top_concepts"
            )

    def _tokenize(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _embed(self, ids: Tensor) -> Tensor:
        return self.lm.get_input_embeddings()(ids)
