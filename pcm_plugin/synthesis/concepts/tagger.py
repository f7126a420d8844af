"""Nouns of captions in any language, found by a function of the user."""

import importlib
import importlib.util
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from pcm_plugin.errors import UserError
from pcm_plugin.formats.atomic_io import sha256
from pcm_plugin.formats.cleaning import clean_text
from pcm_plugin.synthesis.concepts.nouns import STOP_WORDS, Noun, find_nouns, frequent_nouns

Tagger = Callable[[list[str]], Sequence[Iterable[str]]]
"""Function that returns the nouns of each caption of a list."""

_BATCH = 1000


def load_tagger(name: str) -> Tagger:
    """Import a tagger.

    A tagger takes a list of captions and returns the nouns of each, one list of texts per caption,
    in the form in which they are to become concepts (usually the dictionary form). A noun that
    occurs twice in a caption is listed twice. It is called with up to 1,000 captions at a time.

    Args:
        name: ``MODULE:FUNCTION``. The module is one of the environment or of the current folder.

    Raises:
        UserError: If there is no such function, or the module cannot be imported.
    """
    module, _, function = name.partition(":")
    if not module or not function.isidentifier():
        raise UserError(
            f"`tagger` must be MODULE:FUNCTION, such as my_tagger:find_nouns, got `{name}`"
        )
    with _current_folder():
        try:
            tagger = getattr(importlib.import_module(module), function, None)
        except Exception as error:
            raise UserError(
                f"`tagger`={name}: {module} cannot be imported ({type(error).__name__}: {error}); "
                f"it must be a module of the environment, or {module}.py in the current folder"
            ) from error
    if not callable(tagger):
        raise UserError(f"`tagger`={name}: {module} has no function {function}")
    return tagger


def tagger_identity(name: str) -> str:
    """Return the name of a tagger and the SHA-256 of its file, for the record of a data set."""
    module = name.partition(":")[0]
    with _current_folder():
        spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return name
    return f"{name} sha256 {sha256(Path(spec.origin))[:16]}"


def find_concepts(
    captions: Iterable[str],
    tagger: str | None = None,
    min_count: int = 5,
    max_nouns: int | None = 500,
    stop_words: Iterable[str] | None = None,
    phrases: bool = False,
) -> list[Noun]:
    """Find the frequent nouns of captions.

    Args:
        captions: The corpus, read once.
        tagger: ``MODULE:FUNCTION``, see :func:`load_tagger`. Defaults to None, the English tagger
            (:func:`~pcm_plugin.synthesis.concepts.nouns.find_nouns`).
        min_count: Minimum number of occurrences of a noun. Defaults to 5.
        max_nouns: Keep only the most frequent nouns. None keeps all. Defaults to 500.
        stop_words: Nouns to omit. Defaults to None: those of the English tagger, or none with
            another tagger.
        phrases: Whether to include pairs of nouns; only for the English tagger. Defaults to False.

    Returns:
        Nouns by decreasing count; equal counts in alphabetical order.

    Raises:
        UserError: If no noun is frequent enough, a number is out of range, or the tagger fails or
            returns something else.
    """
    if tagger is None:
        stop_words = STOP_WORDS if stop_words is None else stop_words
        return find_nouns(
            captions, min_count, max_nouns=max_nouns, stop_words=stop_words, phrases=phrases
        )
    if min_count < 1 or (max_nouns is not None and max_nouns < 1) or phrases:
        raise UserError(
            "min_count and max_nouns must be at least 1, and phrases False with a tagger, which "
            f"may return phrases; got min_count={min_count}, max_nouns={max_nouns}, "
            f"phrases={phrases}"
        )
    function, counts = load_tagger(tagger), Counter[str]()
    texts = iter(captions)
    while batch := list(islice(texts, _BATCH)):
        for nouns in _tag(function, tagger, batch):
            counts.update(filter(None, map(clean_text, nouns)))
    for word in stop_words or ():
        counts.pop(word, None)
    found = [Noun(word, count) for word, count in counts.items()]
    return frequent_nouns(found, min_count, max_nouns, f" (nouns of `tagger`={tagger})")


def _tag(function: Tagger, name: str, captions: list[str]) -> list[list[str]]:
    """Call a tagger, and check what it returns."""
    try:
        found = [nouns if isinstance(nouns, str) else list(nouns) for nouns in function(captions)]
    except Exception as error:
        raise UserError(f"`tagger`={name} failed: {type(error).__name__}: {error}") from error
    is_valid = len(found) == len(captions) and all(
        isinstance(nouns, list) and all(isinstance(noun, str) for noun in nouns) for nouns in found
    )
    if not is_valid:
        raise UserError(
            f"`tagger`={name} must return a list of texts for each of {len(captions)} captions, "
            f"got {len(found)} results such as {found[:1]!r}"
        )
    return found  # type: ignore[return-value]


@contextmanager
def _current_folder() -> Iterator[None]:
    """Search modules in the current folder too, which a console script does not."""
    folder = str(Path.cwd())
    sys.path.append(folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)
