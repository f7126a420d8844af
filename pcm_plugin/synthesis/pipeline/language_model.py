"""A language model's folder made of captions, for domains that have no pretrained one.

Tokenizers are trained, weights are not: a captioner trains those together with the rest. The same
captions give the same bytes.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pcm_plugin.errors import UserError
from pcm_plugin.formats.atomic_io import folder_sha256, write_bytes, write_json

END = "<|endoftext|>"
"""GPT-2's only special token: the end of a text."""

BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""BERT's special tokens, in the order of their ids."""

_MIN_COUNT = 2


def build_gpt2(
    captions: Iterable[str],
    folder: str | os.PathLike,
    vocab_size: int = 8192,
    layers: int = 2,
    width: int = 128,
    heads: int = 4,
    positions: int = 128,
) -> int:
    """Write ``config.json`` and tokenizer of a GPT-2 of another size.

    The tokenizer is a byte-level BPE, as GPT-2's: it knows every character there is.

    Args:
        captions: What the tokenizer is trained on, read once.
        folder: Folder to make. One with the same content is left as it is.
        vocab_size: Most tokens, at least 257: the bytes and :data:`END`. Defaults to 8192.
        layers: Of the model. Defaults to 2.
        width: Of its embeddings. Defaults to 128.
        heads: Of its attention; they divide ``width``. Defaults to 4.
        positions: Longest sequence in tokens. Defaults to 128.

    Returns:
        The number of tokens.

    Raises:
        FileExistsError: If the folder is there and holds something else.
        UserError: If there are no captions, or a size is out of range.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import GPT2Config, GPT2TokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size <= len(alphabet):
        raise UserError(
            f"vocab_size={vocab_size}: give at least {len(alphabet) + 1}, the bytes and {END}"
        )
    if min(layers, width, heads, positions) < 1 or width % heads:
        raise UserError(
            f"layers={layers}, width={width}, heads={heads}, positions={positions}: give at least "
            "1 of each, and a width that the heads divide"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=_MIN_COUNT,
        special_tokens=[END],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    # A caption follows a prompt: its first word has a space before it, as all others.
    tokenizer.train_from_iterator((f" {text}" for text in _texts(captions)), trainer)
    wrapped: Any = GPT2TokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        unk_token=END,
        model_max_length=positions,
        clean_up_tokenization_spaces=False,
    )
    end = wrapped.eos_token_id
    config = GPT2Config(
        vocab_size=len(wrapped),
        n_positions=positions,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        bos_token_id=end,
        eos_token_id=end,
        architectures=["GPT2LMHeadModel"],
    ).to_diff_dict()
    del config["transformers_version"]

    def write(place: Path) -> None:
        wrapped.save_pretrained(place)
        write_json(place / "config.json", config)

    _write_folder(Path(folder), write)
    return len(wrapped)


def build_bert_tokenizer(
    captions: Iterable[str], folder: str | os.PathLike, vocab_size: int = 8192
) -> int:
    """Write a lower-case WordPiece tokenizer as BERT's, such as BLIP's text model wants.

    Args:
        captions: What it is trained on, read once.
        folder: Folder to make, with ``vocab.txt`` and ``tokenizer_config.json``. One with the same
            content is left as it is.
        vocab_size: Most tokens: those of :data:`BERT_TOKENS`, each letter at a word's beginning
            and inside of one, and pieces. Defaults to 8192.

    Returns:
        The number of tokens.

    Raises:
        FileExistsError: If the folder is there and holds something else.
        UserError: If there are no captions, or more letters than ``vocab_size`` has room for.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    texts = _texts(captions)
    letters = sorted({c for text in texts for c in tokenizer.normalizer.normalize_str(text)})
    letters = [letter for letter in letters if not letter.isspace()]
    # The trainer numbers the inner letters in no fixed order, and settles ties by number: named as
    # special tokens they keep this one.
    known = [*BERT_TOKENS, *letters, *(f"##{letter}" for letter in letters)]
    if vocab_size < len(known):
        raise UserError(
            f"vocab_size={vocab_size}, but special tokens and letters alone are {len(known)}: give "
            "more"
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=_MIN_COUNT, special_tokens=known, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ids = tokenizer.get_vocab()
    tokens = sorted(ids, key=lambda token: ids[token])

    def write(place: Path) -> None:
        write_bytes(place / "vocab.txt", "".join(f"{token}\n" for token in tokens).encode())
        write_json(place / "tokenizer_config.json", {"do_lower_case": True})

    _write_folder(Path(folder), write)
    return len(tokens)


def _texts(captions: Iterable[str]) -> list[str]:
    texts = list(captions)
    if not texts:
        raise UserError("there are no captions to train a tokenizer on: give at least one")
    return texts


def _write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder beside and put it in its place whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        write(beside)
        if folder.exists() and any(folder.iterdir()):
            if folder_sha256(folder) != folder_sha256(beside):
                raise UserError(
                    f"{folder} holds something else than these captions and settings give: remove "
                    "it, or name another --out"
                )
            return
        beside.chmod(0o755)
        os.replace(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
