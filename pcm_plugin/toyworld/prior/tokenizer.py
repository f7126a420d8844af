"""A byte-level BPE tokenizer of the web's captions, in the transformers folder format.

CLIP's own 49,408 tokens would make an embedding table larger than all the rest of the prior.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

CONTEXT_LENGTH = 28
PAD, START, END = "<pad>", "<start>", "<end>"


def train_tokenizer(captions: Iterable[str], folder: Path, vocab_size: int = 640) -> int:
    """Train and save a tokenizer; returns its number of tokens.

    ``END`` is the last token: open_clip's ``argmax`` pooling reads the text feature there.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        special_tokens=[PAD, START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.add_special_tokens([END])
    ids = {token: tokenizer.token_to_id(token) for token in (START, END)}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=list(ids.items())
    )
    wrapped: Any = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
    )
    wrapped.save_pretrained(folder)
    return len(wrapped)
