"""How varied captions are: their words, their length, and how many are not copied."""

from collections.abc import Collection, Sequence

from pcm_plugin.evaluation.scorers import Scores


def diversity(captions: Sequence[Sequence[str]], known: Collection[str] | None = None) -> Scores:
    """Count what makes captions varied.

    Args:
        captions: Tokens of each caption.
        known: Tokenized captions of the training set, words separated by single spaces. Defaults
            to None: no ``novel``.

    Returns:
        - ``distinct-words``: different words in all captions;
        - ``length``: mean words of a caption, and each one's;
        - ``novel``: the percentage of captions that are no caption of the training set.
    """
    lengths = [len(tokens) for tokens in captions]
    total = {
        "distinct-words": float(len({token for tokens in captions for token in tokens})),
        "length": sum(lengths) / len(lengths),
    }
    each = {"length": [float(length) for length in lengths]}
    if known is not None:
        each["novel"] = [100.0 * (" ".join(tokens) not in known) for tokens in captions]
        total["novel"] = sum(each["novel"]) / len(captions)
    return Scores(total, each)
