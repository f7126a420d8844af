"""A captioner that is a causal language model with a prefix: ClipCap's and ViECap's form."""

import os
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcm_plugin.errors import UserError
from pcm_plugin.formats.required_file import FileKind
from pcm_plugin.formats.vocabulary import IGNORE_INDEX
from pcm_plugin.models.building import build_module
from pcm_plugin.models.captioners.base import Captioner, read_captions
from pcm_plugin.models.decoders.causal_lm import load_language_model
from pcm_plugin.models.decoding.caption_form import find_full_stops, to_phrase, to_sentence
from pcm_plugin.models.decoding.prefix_continuation import continue_prefix
from pcm_plugin.models.decoding.search import Found, Search, collect_captions
from pcm_plugin.models.functional.beam_search import beam_search
from pcm_plugin.models.necks import NeckOutput
from pcm_plugin.models.necks.entity_prompt import EntityPrompt
from pcm_plugin.registry import MODELS
from pcm_plugin.structures import DataSample


@MODELS.register_module()
class PrefixCaptioner(Captioner):
    """Captioner: [CLIP backbone] -> neck -> [encoder] -> mapper -> prefix -> language model.

    The language model of transformers goes on from a soft prefix, which the mapper makes of the
    neck's tokens, and a prompt that names the image's concepts. With GlobalPrefix on captions'
    features that is ViECap (Fei et al. 2023); with PCMMixup it is ViECap with PCM (paper, Table 3).
    With PCMMixup, VisualSemanticEncoder and MLPPrefixMapper the prefix is made as in the
    ``MapperEncoder`` of PCM-Net's released code.

    It is for models of GPT-2's kind: what they say next is their output embedding of the last
    hidden state.

    The arguments ``neck``, ``encoder``, ``mapper``, ``loss`` and ``backbone`` are configs of
    registered types, or modules.

    Args:
        neck: Makes tokens from features, such as GlobalPrefix or PCMMixup.
        mapper: Makes the prefix of tokens, such as PrefixMapper or MLPPrefixMapper. Its config may
            leave out ``out_dims``, which then is the language model's.
        language_model: Folder of a causal language model, or a name that transformers finds.
        encoder: Encodes the neck's tokens before the mapper, such as VisualSemanticEncoder.
            Defaults to None, which passes them on.
        pretrained: Whether to begin with its weights. Defaults to True; otherwise they are random.
        freeze_lm: Whether to train the neck and the mapper alone, as ClipCap's Transformer variant
            does. Defaults to False, as ViECap's released code.
        prompt: The sentence between prefix and caption, ``{}`` for the concepts. Defaults to
            ViECap's; None leaves it out.
        concepts: Concept file for the prompt. Defaults to None: call :meth:`set_concepts` before
            the first image. Not part of a checkpoint: another domain may bring its own.
        top_concepts: Most concepts of the prompt. Defaults to 3, as ViECap's released code.
        concept_threshold: Concepts not above this probability are not named. Defaults to 0.2, as
            there.
        temperature: Of the softmax over the concepts. Defaults to 0.01, as there.
        caption_entities: Words that the prompt names in training if the caption has them, instead
            of the concepts that are found by the feature: a concept file or a list of words. See
            :class:`EntityPrompt`. Defaults to None.
        entity_dropout: Probability with which an entity of a caption is left out of the prompt.
            Defaults to 0.4, as in ViECap's released scripts.
        entity_aliases: What some words of captions are called in the prompt, as ``man`` a
            ``person``. Defaults to None.
        full_sentences: Whether captions are whole sentences, as in ViECap's released code: a
            capital letter begins them, directly after the prompt, and a full stop ends them, at
            which generation stops. Otherwise the end of text ends them. Generated captions have no
            full stop either way. Defaults to False.
        loss: Compares logits and tokens, such as CLIPWeightedCELoss. Defaults to None, which is
            enough for inference.
        backbone: Makes features from images, such as OpenCLIPBackbone. Defaults to None.
        beam_size: Beams of the search; 1 is greedy. Defaults to 5, as there.
        max_len: Most tokens of a caption, the end of text included, in training and inference.
            Defaults to 30: ours.
        min_len: Fewest tokens of a caption. Defaults to 0.
        num_captions: Captions an image, at most ``beam_size``. Defaults to 1.
        rerank: Weight of CLIP's cosine of image and caption beside the log-probability, by which
            the beams are ordered; needs a backbone. Defaults to 0, which leaves their order.
        length_penalty: Power of the caption's length by which its log-probability is divided for
            ranking: 0 ranks by the sum of log-probabilities, 1 by their mean per token. Defaults
            to 0.
        data_preprocessor: MMEngine's; None moves batches to the model's device.
        init_cfg: MMEngine's initialisation config. Defaults to None.

    Raises:
        MissingFileError: If there is no such language model, or a file of it is missing.
        UserError: If neck, encoder, mapper and language model have several widths, or the
            tokenizer has no full stop for ``full_sentences``.
    """

    input_files = {
        "language_model": FileKind.LANGUAGE_MODEL,
        "concepts": FileKind.CONCEPT_SET,
        "caption_entities": FileKind.WORD_LIST,
    }

    def __init__(
        self,
        neck: dict | nn.Module,
        mapper: dict | nn.Module,
        language_model: str,
        encoder: dict | nn.Module | None = None,
        pretrained: bool = True,
        freeze_lm: bool = False,
        prompt: str | None = "There are {} in image.",
        concepts: str | os.PathLike | None = None,
        top_concepts: int = 3,
        concept_threshold: float = 0.2,
        temperature: float = 0.01,
        caption_entities: str | os.PathLike | None = None,
        entity_dropout: float = 0.4,
        entity_aliases: dict[str, str] | None = None,
        full_sentences: bool = False,
        loss: dict | nn.Module | None = None,
        backbone: dict | nn.Module | None = None,
        beam_size: int = 5,
        max_len: int = 30,
        min_len: int = 0,
        num_captions: int = 1,
        rerank: float = 0.0,
        length_penalty: float = 0.0,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        search = Search(beam_size, max_len, min_len, num_captions, rerank, length_penalty)
        super().__init__(neck, loss, backbone, search, data_preprocessor, init_cfg)
        self.tokenizer, self.lm = load_language_model(language_model, pretrained)
        self.full_sentences = full_sentences
        # Tokens that end a caption; the first is that of training.
        self.stop_ids: list[int] = [self.tokenizer.eos_token_id]
        if full_sentences:
            self.stop_ids = find_full_stops(self.tokenizer)
        self._room: int | None = getattr(self.lm.config, "max_position_embeddings", None)
        width = self.lm.get_input_embeddings().embedding_dim
        if isinstance(mapper, dict):
            mapper = {"out_dims": width, **mapper}
        self.mapper = build_module(mapper)
        self.encoder = None if encoder is None else build_module(encoder)
        if self.mapper.out_dims != width or self.mapper.embed_dims != self.neck.embed_dims:
            raise UserError(
                f"the mapper takes embed_dims={self.mapper.embed_dims} to out_dims="
                f"{self.mapper.out_dims}, but the neck has embed_dims={self.neck.embed_dims} and "
                f"the language model {width}: give it the neck's embed_dims, and leave out_dims out"
            )
        if self.encoder is not None and self.encoder.embed_dims != self.neck.embed_dims:
            raise UserError(
                f"the encoder's `embed_dims` must be the neck's {self.neck.embed_dims}, got "
                f"`{self.encoder.embed_dims}`: pass one width to neck, encoder and mapper"
            )
        self.freeze_lm = freeze_lm
        self.lm.requires_grad_(not freeze_lm)
        self.prompter: EntityPrompt | None = None
        if prompt is not None:
            self.prompter = EntityPrompt(
                self.neck.clip_dim,
                prompt,
                concepts,
                top_concepts,
                concept_threshold,
                temperature,
                caption_entities,
                entity_dropout,
                entity_aliases,
            )

    @property
    def concept_words(self) -> list[str]:
        """The words of the prompt's concepts."""
        return [] if self.prompter is None else self.prompter.concept_words

    def set_concepts(self, words: Sequence[str], embeddings: Tensor) -> None:
        """Give the concepts that the prompt may name.

        Args:
            words: C words.
            embeddings: (C, Dc), their CLIP text embeddings, of any length but 0.

        Raises:
            UserError: If the sizes do not agree, or there is no prompt.
        """
        if self.prompter is None:
            raise UserError("prompt=None names no concepts: drop them, or give a prompt")
        self.prompter.set_concepts(words, embeddings)

    def train(self, mode: bool = True) -> "PrefixCaptioner":
        """Training mode or not; a frozen language model has no dropout either way."""
        super().train(mode)
        if self.freeze_lm:
            self.lm.eval()
        return self

    def encode(
        self,
        patch_feats: Tensor | None,
        global_feats: Tensor | None,
        data_samples: Sequence[DataSample] | None = None,
    ) -> tuple[Tensor, NeckOutput]:
        """What the language model is to go on from; see :meth:`Captioner.encode`.

        Returns:
            Soft prefix and prompt (B, L, E), and what the neck found; its ``mask`` (B, L) is that
            of prefix and prompt. The gaps before shorter prompts are masked.

        Raises:
            UserError: If there are no features, or prompts need captions that are missing.
        """
        tokens, mixed = super().encode(patch_feats, global_feats, data_samples)
        if self.encoder is not None:
            tokens = self.encoder(tokens, mixed.mask)
        memory = self.mapper(tokens, mixed.mask)  # (B, P, E)
        mask = torch.ones(memory.shape[:2], dtype=torch.bool, device=memory.device)
        if self.prompter is not None and global_feats is not None:
            prompts = [self._ids(text) for text in self._prompts(global_feats, data_samples)]
            longest = max(map(len, prompts))
            gaps = [longest - len(ids) for ids in prompts]
            end = self.tokenizer.eos_token_id
            padded = [[end] * gap + ids for gap, ids in zip(gaps, prompts, strict=True)]
            words = torch.tensor(padded, device=memory.device)
            first = torch.tensor(gaps, device=memory.device).unsqueeze(1)
            known = torch.arange(longest, device=memory.device) >= first
            memory = torch.cat([memory, self._embed(words).to(memory.dtype)], dim=1)
            mask = torch.cat([mask, known], dim=1)
        return memory, mixed._replace(mask=mask)

    def _prompts(
        self, global_feats: Tensor, data_samples: Sequence[DataSample] | None
    ) -> list[str]:
        assert self.prompter is not None
        if not (self.training and self.prompter.reads_captions):
            return self.prompter(global_feats)
        if data_samples is None:
            raise UserError(
                "`data_samples` must have a gt_caption each in training, got `None`: the prompts "
                "name the entities of the captions (caption_entities=None names the images')"
            )
        return self.prompter.from_captions(read_captions(data_samples))

    def teach(
        self, memory: Tensor, mixed: NeckOutput, captions: list[str], packed: bool = False
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Captioner.teach`; what is counted are tokens.

        Raises:
            UserError: If the language model has no room for prefix, prompt and a caption.
        """
        self._check_room(memory, self.search.max_len)
        longest = self.search.max_len - 1
        form = to_sentence if self.full_sentences else to_phrase
        ids = [[*self._ids(form(text))[:longest], self.stop_ids[0]] for text in captions]
        width = max(map(len, ids))
        targets = torch.tensor([own + [IGNORE_INDEX] * (width - len(own)) for own in ids])
        return self._logits(memory, mixed.mask, targets, packed), targets.to(memory.device)

    @torch.no_grad()
    def write(self, memory: Tensor, mixed: NeckOutput, search: Search) -> list[list[Found]]:
        """See :meth:`Captioner.write`.

        Raises:
            UserError: As :meth:`teach`.
        """
        self._check_room(memory, search.max_len)
        count = search.beam_size if search.rerank else search.num_captions
        found = beam_search(
            continue_prefix(self.lm, memory, mixed.mask, search.min_len, self.stop_ids),
            len(memory),
            search.beam_size,
            search.max_len,
            eos_id=self.stop_ids,
            num_return=count,
            device=memory.device,
            length_penalty=search.length_penalty,
        )
        return collect_captions(found, self._decode, search)

    def _decode(self, ids: list[int]) -> str:
        """Return the text of a caption without its stop token."""
        ends = [i for i, token in enumerate(ids) if token in self.stop_ids]
        text = self.tokenizer.decode(ids[: ends[0]] if ends else ids, skip_special_tokens=True)
        return " ".join(text.split())

    def _logits(
        self, memory: Tensor, mask: Tensor, targets: Tensor, packed: bool = False
    ) -> Tensor:
        """Logits (B, T, V) of the words of captions (B, T); or (n, V) of those that are not -1."""
        words = targets[:, :-1].clamp(min=0).to(memory.device)
        inputs = torch.cat([memory, self._embed(words).to(memory.dtype)], dim=1)
        # Behind a caption nothing is masked: none of its words looks there.
        known = F.pad(mask, (0, words.shape[1]), value=True)
        hidden = self.lm.base_model(
            inputs_embeds=inputs,
            attention_mask=known.long(),
            position_ids=(known.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
        ).last_hidden_state[:, memory.shape[1] - 1 :]
        if packed:
            # Found where the targets are, on the CPU in training: a GPU is not waited for.
            rows = (targets.flatten() >= 0).nonzero().flatten().to(memory.device)
            hidden = hidden.flatten(0, 1)[rows]
        return self.lm.get_output_embeddings()(hidden)

    def _check_room(self, memory: Tensor, max_len: int) -> None:
        needed, room = memory.shape[1] + max_len - 1, self._room
        if room is not None and needed > room:
            raise UserError(
                f"prefix, prompt and max_len={max_len} need {needed} places, but the language "
                f"model has {room}: lower max_len, prefix_length or top_concepts"
            )

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _embed(self, words: Tensor) -> Tensor:
        return self.lm.get_input_embeddings()(words)
