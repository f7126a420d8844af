"""Byte-level BPE tokenizer of the web's captions, in the folder format of transformers.

With the 49,408 tokens of CLIP, the embeddings would be larger than the rest of the models.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

CONTEXT_LENGTH = 28
PAD, START, END = "<pad>", "<start>", "<end>"


def train_tokenizer(captions: Iterable[str], folder: Path, vocab_size: int = 640) -> int:
    """Train and save a tokenizer.

    ``END`` has the highest id, since the ``argmax`` pooling of open_clip takes the text feature at
    the highest id.

    Args:
        captions: Training texts.
        folder: Folder to write.
        vocab_size: Maximum number of tokens. Defaults to 640.

    Returns:
        Number of tokens.
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
