"""Folders of language models built from captions, for domains without a pretrained one.

Only the tokenizer is trained here; the captioner trains the weights. Equal captions give equal
bytes.
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
"""The only special token of GPT-2, the end of a text."""

BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""Special tokens of BERT, in the order of their ids."""

_MIN_COUNT = 2
_NUM_BYTES = 256


def build_gpt2(
    captions: Iterable[str],
    folder: str | os.PathLike,
    vocab_size: int = 8192,
    layers: int = 2,
    width: int = 128,
    heads: int = 4,
    positions: int = 128,
) -> int:
    """Write the ``config.json`` and tokenizer of a small GPT-2.

    The tokenizer is a byte-level BPE as that of GPT-2, so it can encode every character.

    Args:
        captions: Training captions of the tokenizer, read once.
        folder: Folder to create. A folder with the same content is left unchanged.
        vocab_size: Maximum number of tokens; at least 257 for the bytes and :data:`END`. Defaults
            to 8192.
        layers: Number of layers. Defaults to 2.
        width: Width of the embeddings. Defaults to 128.
        heads: Number of attention heads, a divisor of ``width``. Defaults to 4.
        positions: Maximum sequence length in tokens. Defaults to 128.

    Returns:
        The number of tokens.

    Raises:
        UserError: If there are no captions, a size is out of range, or the folder exists with other
            content.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import GPT2Config, GPT2TokenizerFast

    check_gpt2(vocab_size, layers, width, heads, positions)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
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
    # A caption follows a prompt, so a space precedes its first word like all others.
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

    def write(target: Path) -> None:
        wrapped.save_pretrained(target)
        write_json(target / "config.json", config)

    _write_folder(Path(folder), write)
    return len(wrapped)


def check_gpt2(vocab_size: int, layers: int, width: int, heads: int, positions: int) -> None:
    """Check the sizes of a small GPT-2; see :func:`build_gpt2`.

    Raises:
        UserError: If a size is out of range.
    """
    if vocab_size <= _NUM_BYTES:
        raise UserError(
            f"vocab_size must be at least {_NUM_BYTES + 1}, for the bytes and {END}, got "
            f"{vocab_size}"
        )
    if min(layers, width, heads, positions) < 1 or width % heads:
        raise UserError(
            "layers, width, heads and positions must be at least 1, and width a multiple of heads, "
            f"got layers={layers}, width={width}, heads={heads}, positions={positions}"
        )


def build_bert_tokenizer(
    captions: Iterable[str], folder: str | os.PathLike, vocab_size: int = 8192
) -> int:
    """Write a lower-case WordPiece tokenizer as that of BERT, for the text model of BLIP.

    Args:
        captions: Training captions, read once.
        folder: Folder to create, with ``vocab.txt`` and ``tokenizer_config.json``. A folder with
            the same content is left unchanged.
        vocab_size: Maximum number of tokens: :data:`BERT_TOKENS`, each letter at the start of and
            inside a word, and word pieces. Defaults to 8192.

    Returns:
        The number of tokens.

    Raises:
        UserError: If there are no captions, ``vocab_size`` is too small for all letters, or the
            folder exists with other content.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    texts = _texts(captions)
    letters = sorted({c for text in texts for c in tokenizer.normalizer.normalize_str(text)})
    letters = [letter for letter in letters if not letter.isspace()]
    # The trainer assigns ids to the inner letters in no fixed order, and breaks ties by id. As
    # special tokens they keep the order of this list.
    known = [*BERT_TOKENS, *letters, *(f"##{letter}" for letter in letters)]
    if vocab_size < len(known):
        raise UserError(
            f"vocab_size must be at least {len(known)}, for special tokens and letters, got "
            f"{vocab_size}"
        )
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=_MIN_COUNT, special_tokens=known, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ids = tokenizer.get_vocab()
    tokens = sorted(ids, key=lambda token: ids[token])

    def write(target: Path) -> None:
        write_bytes(target / "vocab.txt", "".join(f"{token}\n" for token in tokens).encode())
        write_json(target / "tokenizer_config.json", {"do_lower_case": True})

    _write_folder(Path(folder), write)
    return len(tokens)


def _texts(captions: Iterable[str]) -> list[str]:
    texts = list(captions)
    if not texts:
        raise UserError("there are no captions to train a tokenizer on: pass at least one")
    return texts


def _write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a temporary folder, and rename it when it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        write(temporary)
        if folder.exists() and any(folder.iterdir()):
            if folder_sha256(folder) != folder_sha256(temporary):
                raise UserError(
                    f"{folder} contains other files than these captions and settings produce: "
                    "remove it, or pass another --out"
                )
            return
        temporary.chmod(0o755)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
