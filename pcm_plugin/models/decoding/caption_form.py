"""The two forms that captions have for a language model: phrases and sentences."""

from typing import Any

from pcm_plugin.errors import UserError


def to_phrase(caption: str) -> str:
    """Return a caption without its full stop, after the space that follows a prompt."""
    return " " + " ".join(caption.split()).rstrip(". ")


def to_sentence(caption: str) -> str:
    """Return a caption as ViECap's released code has it, without the full stop at its end.

    The first letter is a capital, texts in capitals are lowered, and no space stands before them.
    """
    text = " ".join(caption.split()).rstrip(".!?,;: ")
    text = text.lower() if text.isupper() else text
    return text[:1].upper() + text[1:]


def find_full_stops(tokenizer: Any) -> list[int]:
    """Return the tokens of the full stop: as it follows a word, then as it follows a space.

    Args:
        tokenizer: Tokenizer of transformers.

    Raises:
        UserError: If it has none.
    """
    found = [tokenizer(text, add_special_tokens=False)["input_ids"][-1:] for text in (".", " .")]
    stops = [i for ids in found for i in ids if tokenizer.decode([i]).strip() == "."]
    if not stops:
        raise UserError(
            "`full_sentences` must be False for a tokenizer without a full stop, got `True`: "
            "captions then end with the end of text"
        )
    return list(dict.fromkeys(stops))
