"""Subword vocabulary of a captioner, for languages without spaces or with many word forms.

The file is a ``tokenizer.json`` of the library tokenizers: byte-pair encoding of characters [1]_
with SentencePiece's ``\u2581`` for spaces [2]_.

References:
    .. [1] Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword
       Units", ACL 2016.
    .. [2] Kudo and Richardson, "SentencePiece", EMNLP 2018 (system demonstrations).
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import regex

from pcm_plugin.errors import UserError
from pcm_plugin.formats.atomic_io import write_bytes
from pcm_plugin.formats.caption_vocabulary import EOS_ID, CaptionVocabulary
from pcm_plugin.formats.cleaning import clean_text
from pcm_plugin.formats.text.scripts import begins_unspaced, is_unspaced

EOS = "<|endoftext|>"
"""Token with the index 0 in the file; it is both BOS and EOS."""

SPACE = "\u2581"
"""Character that stands for a space in pieces, as in SentencePiece."""

SIZE = 4000
"""Default of the number of indices."""

# Where words are separated, pieces do not extend over spaces. Elsewhere, longer pieces would be
# phrases.
_MAX_LENGTH, _MAX_UNSPACED_LENGTH = 16, 6
_PUNCTUATION = regex.compile(r"\p{P}+")
_LEADING_MARKS = regex.compile(r"(?:^|(?<=\s))[\p{M}\p{Emoji_Modifier}]+")


class SubwordVocabulary(CaptionVocabulary):
    """Pieces of words and their indices.

    Captions keep their case and punctuation. They are normalized by
    :func:`~pcm_plugin.formats.cleaning.clean_text`, i.e. to Unicode NFC with single spaces.
    Characters that the vocabulary lacks are dropped. Pieces consist of whole characters, so every
    sequence of indices is valid text.

    Args:
        content: Content of a ``tokenizer.json`` that :meth:`build` made.

    Raises:
        UserError: If it is the content of another tokenizer.
    """

    unit = "pieces"

    def __init__(self, content: Mapping[str, Any]) -> None:
        from tokenizers import Tokenizer

        _check(content)
        self._tokenizer = Tokenizer.from_str(json.dumps(content))
        ids = self._tokenizer.get_vocab()
        self.pieces = sorted(ids, key=lambda piece: ids[piece])
        if [ids[piece] for piece in self.pieces] != list(range(len(ids))) or ids[EOS] != EOS_ID:
            raise UserError(f"the indices of a subword vocabulary must be 0 ({EOS}), 1, 2, ...")
        self._index = {piece: i for i, piece in enumerate(self.pieces) if i != EOS_ID}

    def __len__(self) -> int:
        """Return the number of indices, including EOS."""
        return len(self.pieces)

    def __contains__(self, token: str) -> bool:
        return token in self._index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SubwordVocabulary) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(tuple(self.pieces))

    @classmethod
    def build(
        cls, captions: Iterable[str], size: int = SIZE, min_count: int = 5
    ) -> "SubwordVocabulary":
        """Train a vocabulary on a corpus. Equal captions give an equal vocabulary.

        Args:
            captions: The corpus, read once.
            size: Maximum number of indices, including EOS. Defaults to 4000.
            min_count: Minimum count of a character, and of a piece of several characters (at least
                2). Defaults to 5.

        Returns:
            EOS, then the characters by code point, then the pieces in the order in which they were
            merged. If most captions are in a script without spaces
            (:func:`~pcm_plugin.formats.text.scripts.is_unspaced`), words at the start of captions
            are not marked as words after a space are.

        Raises:
            UserError: If no character occurs ``min_count`` times, or they exceed ``size``.
        """
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

        texts = [clean_text(caption).replace(SPACE, "_") for caption in captions]
        counts = Counter(character for text in texts for character in text if character != " ")
        alphabet = sorted(c for c, count in counts.items() if count >= min_count)
        if not alphabet:
            raise UserError(
                f"none of {len(counts)} characters occurs min_count={min_count} times: lower "
                "min_count or pass more captions"
            )
        alphabet = sorted({*alphabet, SPACE})
        if len(alphabet) >= size:
            raise UserError(
                f"`size` must be more than {len(alphabet)}, the characters that occur "
                f"min_count={min_count} times, got `{size}`: raise size or min_count"
            )
        unspaced = 2 * sum(map(is_unspaced, texts)) > len(texts)
        scheme = "never" if unspaced else "always"
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(SPACE, "_")]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme, split=True),
                pre_tokenizers.Punctuation("isolated"),
            ]
        )
        tokenizer.decoder = decoders.Metaspace(SPACE, prepend_scheme=scheme)
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=max(2, min_count),
            special_tokens=[EOS],
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            max_token_length=_MAX_UNSPACED_LENGTH if unspaced else _MAX_LENGTH,
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(json.loads(tokenizer.to_str()))

    def to_file(self, path: str | os.PathLike) -> None:
        """Write a ``tokenizer.json``; an existing file is replaced atomically."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, f"{self._tokenizer.to_str(pretty=True)}\n".encode())

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file."""
        return json.loads(self._tokenizer.to_str())

    def split(self, caption: str) -> list[str]:
        """Return the pieces of a caption, then the characters that the vocabulary lacks."""
        unknown = [c for c in clean_text(caption) if c not in self._index and c not in (" ", SPACE)]
        return [self.pieces[index] for index in self.to_ids(caption)] + unknown

    def to_ids(self, caption: str) -> list[int]:
        """Return the indices of the pieces of a caption; unknown characters are dropped."""
        ids = self._tokenizer.encode(clean_text(caption), add_special_tokens=False).ids
        # A caption may contain the text of EOS.
        return [index for index in ids if index != EOS_ID]

    def phrase_ids(self, phrase: str) -> list[int]:
        """Return the indices of the pieces of a phrase within a caption.

        Args:
            phrase: Words as :meth:`phrase_text` returns them.

        Raises:
            UserError: If the vocabulary lacks one of its characters.
        """
        unknown = sorted({c for c in phrase if c not in self._index})
        if unknown or not phrase.strip(SPACE):
            raise UserError(
                f"the captioner cannot generate {phrase.replace(SPACE, ' ').strip()!r}: "
                f"{', '.join(map(repr, unknown)) or 'nothing'} is not among the characters of its "
                f"{len(self) - 1:,} pieces"
            )
        # The underscore is a piece of its own, before which the tokenizer may add a space.
        parts = self._tokenizer.pre_tokenizer.pre_tokenize_str(f"_{phrase.replace(SPACE, ' ')}")
        words = [word for word, _ in parts]
        words = words[words.index("_") + 1 :]
        return [token.id for word in words for token in self._tokenizer.model.tokenize(word)]

    def truncate(self, ids: list[int], length: int) -> list[int]:
        """Return the first indices of a caption, without parts of characters.

        A base letter and its combining marks, or the parts of a joined emoji, are one character
        (Unicode's grapheme cluster). If its pieces do not fit, all of them are left out, unless
        nothing else is left.

        Args:
            ids: The indices.
            length: Maximum number of indices to keep.
        """
        if len(ids) <= length:
            return ids
        ends = {0}
        for cluster in regex.findall(r"\X", self._text(ids)):
            ends.add(max(ends) + len(cluster))
        lengths = [len(self.pieces[index]) for index in ids]
        cut = length
        while cut and sum(lengths[:cut]) not in ends:
            cut -= 1
        return ids[: cut or length]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of indices, up to the first 0.

        Args:
            ids: Indices without the leading BOS.

        Returns:
            The text, normalized as captions are. A combining mark without a base letter and a
            joiner at the end, as a model may generate them, are dropped.
        """
        known = []
        for index in map(int, ids):
            if index == EOS_ID:
                break
            known.append(index)
        text = clean_text(self._text(known).replace(SPACE, " "))
        return clean_text(_LEADING_MARKS.sub("", text))

    def phrase_text(self, text: str) -> str:
        """Return words as they occur within the joined pieces of a caption.

        Args:
            text: Words. If they are in a script with spaces, they begin after a space. Punctuation
                follows a word directly.
        """
        text = clean_text(text).replace(SPACE, "_")
        attached = begins_unspaced(text) or _PUNCTUATION.fullmatch(text)
        return ("" if attached else SPACE) + text.replace(" ", SPACE)

    def _text(self, ids: Iterable[int]) -> str:
        return "".join(self.pieces[index] for index in ids)


def _check(content: Mapping[str, Any]) -> None:
    """Check that the content is of a tokenizer as :meth:`SubwordVocabulary.build` makes it."""
    model, decoder = content.get("model") or {}, content.get("decoder") or {}
    kinds = (model.get("type"), decoder.get("type"), (model.get("vocab") or {}).get(EOS))
    expected = ("BPE", "Metaspace", EOS_ID)
    if kinds != expected or model.get("byte_fallback"):
        raise UserError(
            f"a subword vocabulary must be a tokenizer of characters with model, decoder and index "
            f"of {EOS} {expected}, got {kinds}: make one with pcm build-vocabulary --kind subword"
        )
