"""Comparison of captions with the true scenes: which things and colors they mention."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pcm_plugin.toyworld.scene import Scene
from pcm_plugin.toyworld.things import KINDS, plural

_PERSON = "person"
_KIND_OF = {
    form: _PERSON if word == _PERSON else kind.name
    for kind in KINDS.values()
    for word in kind.words
    for form in (word, plural(word))
}
_COLORS = {color for kind in KINDS.values() for color in kind.colors}
_CLOTHES = {"shirt", "dress", "scarf"}
_LIMITS = {"0 to 9": 10, "10 to 99": 100, "100 and more": None}
FREQUENCIES = tuple(_LIMITS)
"""Classes of kinds by the number of training captions that mention them."""


def mentions(caption: str) -> list[tuple[str, str | None]]:
    """Return the mentions of things in a caption, in order.

    Args:
        caption: Caption in lower case, as written by the annotators of the toy world.

    Returns:
        Kind and color of each mention; the color is None if it is not mentioned. The color of a
        person is that of the clothes. The word "person" is not a kind and is ignored.
    """
    words = caption.replace(",", "").split()
    mentioned: list[tuple[str, str | None]] = []
    for i, word in enumerate(words):
        before = words[i - 1] if i else ""
        color = before if before in _COLORS else None
        if word in _KIND_OF:
            mentioned.append((_KIND_OF[word], color))
        elif word in _CLOTHES and color and mentioned:
            mentioned[-1] = (mentioned[-1][0], color)
    return [(kind, color) for kind, color in mentioned if kind != _PERSON]


def named_things(caption: str) -> list[str]:
    """Return the kinds that a caption mentions by any word, sorted, without duplicates."""
    return sorted({kind for kind, _ in mentions(caption)})


def agreement(captions: Sequence[str], scenes: Sequence[Scene]) -> dict[str, float]:
    """Measure how well captions agree with the scenes, in percent.

    Args:
        captions: One caption per scene.
        scenes: The scenes.

    Returns:
        - ``named right``: share of mentions whose kind is in the scene;
        - ``found``: share of the things in the scenes that are mentioned;
        - ``repeated``: share of mentions of a kind that the caption has mentioned before;
        - ``color right``: share of correct colors among those of mentioned things in the scene.
    """
    mentioned = right = repeated = things = found = colors = colors_right = 0
    for caption, scene in zip(captions, scenes, strict=True):
        color_of = {thing.kind: thing.color for thing in scene.things}
        seen: set[str] = set()
        for kind, color in mentions(caption):
            mentioned += 1
            right += kind in color_of
            repeated += kind in seen
            seen.add(kind)
            if color and kind in color_of:
                colors += 1
                colors_right += color == color_of[kind]
        things += len(color_of)
        found += len(seen & set(color_of))
    return {
        "named right": 100 * right / max(1, mentioned),
        "found": 100 * found / max(1, things),
        "repeated": 100 * repeated / max(1, mentioned),
        "color right": 100 * colors_right / max(1, colors),
    }


def count_kinds(captions: Iterable[str]) -> Counter[str]:
    """Count the captions that mention each kind of thing."""
    return Counter(kind for caption in captions for kind in named_things(caption))


def found_by_frequency(
    captions: Sequence[str], scenes: Sequence[Scene], counts: Mapping[str, int]
) -> dict[str, float | None]:
    """Measure the share of things that are mentioned, by how often training captions mention them.

    Args:
        captions: One caption per scene.
        scenes: The scenes.
        counts: Number of training captions that mention each kind, from :func:`count_kinds`.

    Returns:
        Percentage of the things in the scenes that are mentioned, for each of :data:`FREQUENCIES`;
        None if the scenes have no such things.
    """
    things: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for caption, scene in zip(captions, scenes, strict=True):
        mentioned = named_things(caption)
        for kind in {thing.kind for thing in scene.things}:
            name = _frequency(counts.get(kind, 0))
            things[name] += 1
            found[name] += kind in mentioned
    return {
        name: 100 * found[name] / things[name] if things[name] else None for name in FREQUENCIES
    }


def _frequency(count: int) -> str:
    return next(name for name, limit in _LIMITS.items() if limit is None or count < limit)
