"""Diversity of captions: different captions, vocabulary, length and novelty."""

from collections.abc import Collection, Sequence

from pcm_plugin.evaluation.scorers import Scores


def diversity(
    captions: Sequence[Sequence[str]], train_captions: Collection[str] | None = None
) -> Scores:
    """Compute the diversity of captions.

    Args:
        captions: Tokens of each caption.
        train_captions: Tokenized captions of the training set, words separated by single spaces.
            Defaults to None, without ``novel``.

    Returns:
        - ``distinct-captions``: number of different captions;
        - ``distinct-words``: number of different words in all captions;
        - ``length``: number of words, mean and per caption;
        - ``novel``: percentage of captions that do not occur in the training set.
    """
    lengths = [len(tokens) for tokens in captions]
    total = {
        "distinct-captions": float(len({" ".join(tokens) for tokens in captions})),
        "distinct-words": float(len({token for tokens in captions for token in tokens})),
        "length": sum(lengths) / len(lengths),
    }
    each = {"length": [float(length) for length in lengths]}
    if train_captions is not None:
        each["novel"] = [100.0 * (" ".join(tokens) not in train_captions) for tokens in captions]
        total["novel"] = sum(each["novel"]) / len(captions)
    return Scores(total, each)
