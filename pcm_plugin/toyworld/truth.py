"""What a caption says of a scene, read back: things and their colours, against the truth."""

from __future__ import annotations

from collections.abc import Sequence

from pcm_plugin.toyworld.scene import Scene
from pcm_plugin.toyworld.things import KINDS, plural

_ANYBODY = "person"
_KIND_OF = {
    form: _ANYBODY if word == _ANYBODY else kind.name
    for kind in KINDS.values()
    for word in kind.words
    for form in (word, plural(word))
}
_COLORS = {color for kind in KINDS.values() for color in kind.colors}
_CLOTHES = {"shirt", "dress", "scarf"}


def mentions(caption: str) -> list[tuple[str, str | None]]:
    """The things that a caption names, in its order, each as often as it does.

    Args:
        caption (str): Lower case, as annotators of the toy world write.

    Returns:
        list[tuple[str, str | None]]: Kind and colour of each; ``None`` where no colour is said. A
        person's colour is that of the clothes. "Person" itself is no kind and left out.
    """
    words = caption.replace(",", "").split()
    found: list[tuple[str, str | None]] = []
    for i, word in enumerate(words):
        before = words[i - 1] if i else ""
        color = before if before in _COLORS else None
        if word in _KIND_OF:
            found.append((_KIND_OF[word], color))
        elif word in _CLOTHES and color and found:
            found[-1] = (found[-1][0], color)
    return [(kind, color) for kind, color in found if kind != _ANYBODY]


def named_things(caption: str) -> list[str]:
    """The kinds that a caption names, by whatever word, each once, sorted."""
    return sorted({kind for kind, _ in mentions(caption)})


def agreement(captions: Sequence[str], scenes: Sequence[Scene]) -> dict[str, float]:
    """How well captions agree with the scenes that they are of, in per cent.

    Args:
        captions (Sequence[str]): A caption a scene.
        scenes (Sequence[Scene]): The scenes.

    Returns:
        dict[str, float]: ``named right``, the share of mentions whose kind is there; ``found``, the
        share of things that are mentioned; ``repeated``, the share of mentions of a kind that the
        caption has named already; ``colour right``, of the colours said of things that are there.
    """
    said = right = again = things = found = colors = colors_right = 0
    for caption, scene in zip(captions, scenes, strict=True):
        color_of = {thing.kind: thing.color for thing in scene.things}
        seen: set[str] = set()
        for kind, color in mentions(caption):
            said += 1
            right += kind in color_of
            again += kind in seen
            seen.add(kind)
            if color and kind in color_of:
                colors += 1
                colors_right += color == color_of[kind]
        things += len(color_of)
        found += len(seen & set(color_of))
    return {
        "named right": 100 * right / max(1, said),
        "found": 100 * found / max(1, things),
        "repeated": 100 * again / max(1, said),
        "colour right": 100 * colors_right / max(1, colors),
    }
