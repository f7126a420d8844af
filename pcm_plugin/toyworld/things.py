"""Kinds of things in the toy world: words, colors, sizes and habits."""

from dataclasses import dataclass

from pcm_plugin.toyworld.pen import Color

ARTIFICIAL_COLORS: dict[str, Color] = {
    "red": (204, 38, 42),
    "blue": (38, 84, 204),
    "green": (46, 150, 66),
    "yellow": (238, 202, 40),
    "orange": (240, 128, 28),
    "purple": (134, 58, 164),
    "pink": (240, 130, 176),
}
"""Colors of artificial things and clothes."""

NATURAL_COLORS: dict[str, Color] = {
    "brown": (140, 92, 54),
    "white": (238, 234, 226),
    "black": (58, 54, 58),
    "gray": (142, 146, 154),
    "orange": (222, 146, 74),
    "yellow": (248, 210, 64),
}
"""Colors of fur, feathers, skin and wood."""


@dataclass(frozen=True)
class Kind:
    """A kind of thing.

    Attributes:
        name: Name of the kind and of its function in :mod:`.drawings`.
        words: Words that annotators use for it, most common first.
        group: ``person``, ``animal``, ``vehicle``, ``furniture``, ``object``, ``food``, ``plant``
            or ``building``. Determines verbs and clothes.
        size: Side of its tile as a share of the picture's side.
        colors: Names of its colors.
        natural: Whether the color is usually obvious and seldom mentioned.
        habit: ``ground``, ``air`` (flies or floats) or ``water`` (may be on water).
        holds: Whether things can lie on top of it.
        shelters: Whether things can be under it.
        light: Whether it is small enough to lie on top of something.
    """

    name: str
    words: tuple[str, ...]
    group: str
    size: float
    colors: tuple[str, ...]
    natural: bool = False
    habit: str = "ground"
    holds: bool = False
    shelters: bool = False
    light: bool = False


_P = tuple(ARTIFICIAL_COLORS)
_KINDS = (
    Kind("man", ("man", "guy", "person"), "person", 0.46, _P),
    Kind("woman", ("woman", "lady", "person"), "person", 0.46, _P),
    Kind("dog", ("dog", "puppy"), "animal", 0.36, ("brown", "white", "black", "gray"), True),
    Kind(
        "cat",
        ("cat", "kitten"),
        "animal",
        0.32,
        ("orange", "white", "black", "gray"),
        True,
        light=True,
    ),
    Kind("horse", ("horse", "pony"), "animal", 0.46, ("brown", "white", "black"), True),
    Kind("sheep", ("sheep", "lamb"), "animal", 0.38, ("white", "white", "gray"), True),
    Kind(
        "bird",
        ("bird",),
        "animal",
        0.28,
        ("red", "blue", "yellow", "green"),
        habit="air",
        light=True,
    ),
    Kind("duck", ("duck",), "animal", 0.3, ("yellow", "white", "brown"), True, habit="water"),
    Kind("elephant", ("elephant",), "animal", 0.54, ("gray",), True),
    Kind("rabbit", ("rabbit", "bunny"), "animal", 0.3, ("white", "brown", "gray"), True),
    Kind("car", ("car", "automobile"), "vehicle", 0.46, _P),
    Kind("bus", ("bus",), "vehicle", 0.52, _P),
    Kind("truck", ("truck", "lorry"), "vehicle", 0.5, _P),
    Kind("bicycle", ("bicycle", "bike"), "vehicle", 0.42, _P),
    Kind("boat", ("boat", "sailboat"), "vehicle", 0.44, _P, habit="water"),
    Kind("airplane", ("airplane", "plane", "jet"), "vehicle", 0.46, _P, habit="air"),
    Kind("chair", ("chair", "seat"), "furniture", 0.4, _P, holds=True),
    Kind(
        "table",
        ("table", "desk"),
        "furniture",
        0.5,
        (*_P, "brown", "brown"),
        holds=True,
        shelters=True,
    ),
    Kind("bed", ("bed",), "furniture", 0.54, _P, holds=True),
    Kind("couch", ("couch", "sofa"), "furniture", 0.52, _P, holds=True),
    Kind("lamp", ("lamp", "light"), "furniture", 0.38, _P),
    Kind("clock", ("clock",), "object", 0.3, _P, light=True),
    Kind("ball", ("ball",), "object", 0.24, _P, light=True),
    Kind("umbrella", ("umbrella", "parasol"), "object", 0.38, _P, shelters=True),
    Kind("cup", ("cup", "mug"), "object", 0.26, _P, light=True),
    Kind("kite", ("kite",), "object", 0.36, _P, habit="air"),
    Kind("balloon", ("balloon",), "object", 0.34, _P, habit="air"),
    Kind(
        "guitar", ("guitar",), "object", 0.38, ("brown", "orange", "red", "black"), True, light=True
    ),
    Kind("cake", ("cake",), "food", 0.3, ("pink", "yellow", "orange", "brown"), light=True),
    Kind("pizza", ("pizza",), "food", 0.3, ("yellow",), True, light=True),
    Kind("banana", ("banana",), "food", 0.28, ("yellow",), True, light=True),
    Kind("tree", ("tree",), "plant", 0.54, ("green", "green", "orange"), True, shelters=True),
    Kind("flower", ("flower", "blossom"), "plant", 0.32, ("red", "pink", "purple", "blue")),
    Kind(
        "house", ("house", "home", "cottage"), "building", 0.56, ("red", "blue", "green", "orange")
    ),
    Kind("tent", ("tent",), "building", 0.46, _P),
    Kind("snowman", ("snowman",), "object", 0.42, ("red", "blue", "green", "purple"), True),
)

KINDS: dict[str, Kind] = {kind.name: kind for kind in _KINDS}
"""All kinds by name."""

PLURALS: dict[str, str] = {
    "man": "men",
    "woman": "women",
    "lady": "ladies",
    "person": "people",
    "sheep": "sheep",
    "puppy": "puppies",
    "pony": "ponies",
    "bunny": "bunnies",
    "bus": "buses",
    "lorry": "lorries",
    "couch": "couches",
}


def plural(word: str) -> str:
    """Return the plural of a word of :data:`KINDS`."""
    return PLURALS.get(word, word + "s")


def rgb(color: str, kind: Kind) -> Color:
    """Return the RGB value of a named color for a kind of thing."""
    natural_first = kind.group == "animal" or color not in ARTIFICIAL_COLORS
    table = NATURAL_COLORS if natural_first and color in NATURAL_COLORS else ARTIFICIAL_COLORS
    return table[color]
