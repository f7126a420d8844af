"""Scenes, and how to sample those of a domain.

The *content* of a scene is its place, the kinds of its things and their relation. It determines the
split, so that train, val and test share no content, whatever the seed.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from pcm_plugin.errors import UserError
from pcm_plugin.toyworld.things import KINDS

OUTDOORS = ("park", "beach", "street", "snow", "desert", "lake")
INDOORS = ("kitchen", "living room")
PLACES = (*OUTDOORS, *INDOORS)
STUDIO = "studio"
"""Plain background, which only the web has: product-like pictures of one thing."""

LIGHTS = ("day", "sun", "cloud", "dusk", "dark")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Thing:
    """``count`` things of one kind that look alike."""

    kind: str
    color: str
    size: str = "medium"
    count: int = 1


@dataclass(frozen=True)
class Scene:
    """A scene.

    Attributes:
        place: One of :data:`PLACES`, or :data:`STUDIO`.
        things: One to three things.
        relation: Position of the first thing relative to the second, or None.
        light: One of :data:`LIGHTS`.
    """

    place: str
    things: tuple[Thing, ...]
    relation: str | None = None
    light: str = "day"

    @property
    def content(self) -> str:
        """Place, kinds and relation, which determine the split."""
        kinds = "+".join(sorted(thing.kind for thing in self.things))
        return f"{self.place}|{kinds}|{self.relation or '-'}"

    @property
    def split(self) -> str:
        """Split of the content: ``test`` and ``val`` (one tenth each), or ``train``."""
        if self.place == STUDIO:
            return "train"
        digest = hashlib.sha256(self.content.encode()).digest()
        return {0: "test", 1: "val"}.get(digest[0] % 10, "train")


def scene_from_dict(data: Mapping[str, Any]) -> Scene:
    """Return the scene of a dict made by :func:`dataclasses.asdict`."""
    return Scene(**{**data, "things": tuple(Thing(**thing) for thing in data["things"])})


@dataclass(frozen=True)
class Domain:
    """Distribution of places, things and phrasing.

    Attributes:
        name: Name of the domain.
        places: Weight of each place.
        kinds: Weight of each kind of thing.
        style: Style of the captions, a key of ``captions.STYLES``.
        studio: Share of studio pictures. Defaults to 0.
    """

    name: str
    places: dict[str, float]
    kinds: dict[str, float]
    style: str
    studio: float = 0.0


def _weights(text: str) -> dict[str, float]:
    """Parse weights: ``'dog:3 cat'`` becomes ``{'dog': 3.0, 'cat': 1.0}``."""
    pairs = (item.partition(":") for item in text.split())
    return {name.replace("_", " "): float(weight or 1) for name, _, weight in pairs}


TOWN = Domain(
    "town",
    _weights("street:3 kitchen:3 living_room:3 park:2"),
    _weights(
        "man:3 woman:3 dog:3 cat:3 bird car:3 bus:2 truck bicycle:2 chair:2 table:3 bed:2 couch:2 "
        "lamp:2 clock:2 ball umbrella:2 cup:2 balloon guitar cake:2 pizza:2 banana:2 tree flower "
        "house:2"
    ),
    "plain",
)
COUNTRY = Domain(
    "country",
    _weights("beach:3 snow:2 desert:2 lake:3 park:2"),
    _weights(
        "man:3 woman:3 dog:2 horse:3 sheep:3 bird:2 duck:3 elephant:2 rabbit:2 truck bicycle "
        "boat:3 airplane:2 chair ball:2 umbrella:2 kite:3 balloon:2 tree:2 flower:2 house tent:3 "
        "snowman:2"
    ),
    "rich",
)
WEB = Domain("web", dict.fromkeys(PLACES, 1.0), dict.fromkeys(KINDS, 1.0), "web", studio=0.3)

DOMAINS: dict[str, Domain] = {domain.name: domain for domain in (TOWN, COUNTRY, WEB)}


def _pick(weights: dict[str, float], rng: Random) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def _thing(kind: str, rng: Random) -> Thing:
    size = rng.choices(("medium", "small", "large"), (5, 2, 2))[0]
    countable = KINDS[kind].size < 0.4 and KINDS[kind].group != "furniture"
    count = rng.choices((1, 2, 3), (8, 2, 1))[0] if countable else 1
    return Thing(kind, rng.choice(KINDS[kind].colors), size, count)


def _relation(first: Thing, second: Thing, rng: Random) -> str:
    a, b = KINDS[first.kind], KINDS[second.kind]
    choices = ["next to", "next to", "left of", "right of"]
    if first.count == second.count == 1 and a.habit == b.habit == "ground":
        choices += ["behind", "in front of"]
        if b.holds and a.light:
            choices += ["on"] * 6
        if b.shelters and (a.light or a.group == "animal") and a.size < 0.4:
            choices += ["under"] * 4
    if a.habit == "air" and b.habit != "air":
        choices = ["above"]
    return rng.choice(choices)


def sample_scene(domain: Domain, rng: Random) -> Scene:
    """Sample a scene of a domain, of any split."""
    if rng.random() < domain.studio:
        return Scene(STUDIO, (_thing(_pick(domain.kinds, rng), rng),))
    place = _pick(domain.places, rng)
    weights = dict(domain.kinds)
    if place in INDOORS:
        for kind in KINDS.values():
            outdoor = kind.group in ("building", "vehicle") or kind.name in ("tree", "snowman")
            if outdoor and kind.name != "bicycle":
                weights.pop(kind.name, None)
    things: list[Thing] = []
    for _ in range(rng.choices((1, 2, 3), (2, 5, 2))[0]):
        name = _pick(weights, rng)
        weights.pop(name)
        things.append(_thing(name, rng))
    relation = None
    if len(things) > 1 and rng.random() < 0.75:
        relation = _relation(things[0], things[1], rng)
    light = rng.choice(LIGHTS) if place in OUTDOORS else rng.choice(("day", "day", "dark"))
    return Scene(place, tuple(things), relation, light)


def scenes(domain: Domain, split: str, count: int, seed: int) -> Iterator[Scene]:
    """Sample ``count`` scenes of one split; equal arguments give equal scenes.

    Args:
        domain: The domain.
        split: One of :data:`SPLITS`.
        count: Number of scenes.
        seed: Seed of the scenes.

    Raises:
        UserError: If the split is unknown.
    """
    if split not in SPLITS:
        raise UserError(f"`split` must be one of {', '.join(SPLITS)}, got {split!r}")
    rng = Random(f"{domain.name}/{split}/{seed}")
    while count:
        scene = sample_scene(domain, rng)
        if scene.split == split:
            count -= 1
            yield scene
