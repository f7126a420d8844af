"""Captions of scenes by simulated annotators.

Annotators differ in their choice of words, the order of their sentences, the level of detail and
what they omit. The style of a domain sets how often each habit occurs: ``plain`` is terse, ``rich``
has more details and other words, ``web`` mixes both with fragments like those of alt texts.
"""

from dataclasses import dataclass
from random import Random

from pcm_plugin.toyworld.scene import OUTDOORS, STUDIO, Scene, Thing
from pcm_plugin.toyworld.things import KINDS, plural


@dataclass(frozen=True)
class Style:
    """Habits of annotators. All values but ``words`` are probabilities.

    Attributes:
        words: Weights of the first, second and third word for a kind.
        color: Mention of a color that is not obvious for the kind.
        size: Mention of a size other than medium.
        third: Mention of the third thing.
        second: Mention of the second thing.
        place: Mention of the place.
        place_first: Sentence that begins with the place.
        light: Mention of light or weather.
        verb: Use of a verb.
        opener: Sentence that begins with "a photo of" or a similar phrase.
        fragment: Fragment without articles instead of a sentence.
    """

    words: tuple[float, ...]
    color: float
    size: float
    third: float
    second: float
    place: float
    place_first: float
    light: float
    verb: float
    opener: float
    fragment: float = 0.0


STYLES: dict[str, Style] = {
    "plain": Style((8, 2, 1), 0.3, 0.15, 0.5, 0.92, 0.8, 0.08, 0.08, 0.6, 0.12),
    "rich": Style((4, 4, 2), 0.35, 0.2, 0.75, 0.97, 0.9, 0.3, 0.35, 0.95, 0.04),
    "web": Style((4, 3, 2), 0.4, 0.2, 0.6, 0.92, 0.75, 0.15, 0.2, 0.6, 0.2, 0.2),
}

_PLACES = {
    "park": ("in a park", "on the grass", "in a grassy field", "on a green lawn"),
    "beach": ("on a beach", "on the sand", "by the sea", "on the shore"),
    "street": ("on a street", "in the city", "on a road", "in front of some buildings"),
    "snow": ("in the snow", "on a snowy field", "in the snowy mountains"),
    "desert": ("in the desert", "on a sandy dune", "in a dry desert"),
    "lake": ("on a lake", "by the water", "at a lake"),
    "kitchen": ("in a kitchen", "on the tiled floor", "in the kitchen"),
    "living room": ("in a living room", "on a wooden floor", "inside a room"),
    "studio": ("on a plain background", "in a studio"),
}
_PLACE_NOUNS = {
    "park": "park",
    "beach": "beach",
    "street": "street",
    "snow": "snow",
    "desert": "desert",
    "lake": "lake",
    "kitchen": "kitchen",
    "living room": "room",
    "studio": "studio",
}
_LIGHTS = {
    "sun": ("on a sunny day", "in bright sunshine", "under a bright sky"),
    "cloud": ("on a cloudy day", "under a gray sky"),
    "dusk": ("at sunset", "at dusk", "in the evening"),
    "dark": ("at night", "in the dark"),
}
_VERBS = {
    "person": ("standing", "posing", "waiting", "stands", "is standing", "smiling"),
    "animal": ("standing", "sitting", "resting", "stands", "sits", "is standing"),
    "vehicle": ("parked", "is parked", "stopped", "sits", "stands"),
    "furniture": ("standing", "stands", "is placed", "sits"),
    "object": ("lying", "sits", "is placed", "left"),
    "food": ("lying", "served", "sits", "is placed"),
    "plant": ("growing", "stands", "grows", "is growing"),
    "building": ("standing", "stands", "is set up", "sits"),
}
_AIR_VERBS = {
    "airplane": ("flying", "flies", "is flying", "passing"),
    "kite": ("flying", "flies", "is flying", "soaring"),
    "balloon": ("floating", "floats", "is floating", "hovering"),
    "bird": ("flying", "perched", "is flying", "sits"),
}
_WATER_VERBS = ("floating", "floats", "is floating", "sailing")
_RELATIONS = {
    "on": ("on", "on top of"),
    "under": ("under", "beneath", "below"),
    "behind": ("behind", "in the back of"),
    "in front of": ("in front of", "before"),
    "above": ("above", "over", "high above"),
    "next to": ("next to", "beside", "near", "by"),
    "left of": ("to the left of", "left of", "next to", "beside"),
    "right of": ("to the right of", "right of", "next to", "beside"),
}
_INVERSE = {
    "under": "below",
    "behind": "in front of",
    "in front of": "behind",
    "above": "below",
    "next to": "next to",
    "left of": "to the right of",
    "right of": "to the left of",
    "on": "under",
}
_SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("big", "large", "huge")}
_COUNTS = {2: ("two", "two", "a couple of", "a pair of"), 3: ("three", "three", "several", "some")}
_OPENERS = ("a photo of", "a picture of", "there is", "a view of", "an image of", "this is")


def with_article(phrase: str) -> str:
    """Return a phrase with its indefinite article."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _pick_word(thing: Thing, style: Style, rng: Random) -> str:
    words = KINDS[thing.kind].words
    return rng.choices(words, style.words[: len(words)])[0]


def _noun_phrase(thing: Thing, style: Style, rng: Random, bare: bool = False) -> str:
    """Return a phrase such as 'two small red balls' or 'a woman in a blue dress'.

    Args:
        thing: The thing.
        style: Habits of the annotator.
        rng: Random generator of the annotator.
        bare: Whether to omit the article. Defaults to False.
    """
    kind = KINDS[thing.kind]
    word = _pick_word(thing, style, rng)
    noun = word if thing.count == 1 else plural(word)
    adjectives, tail = [], ""
    if thing.size != "medium" and kind.group != "person" and rng.random() < style.size:
        adjectives.append(rng.choice(_SIZE_WORDS[thing.size]))
    if rng.random() < style.color * (0.45 if kind.natural else 1):
        if kind.group == "person":
            clothes = "dress" if thing.kind == "woman" else "shirt"
            wearing = rng.choice(("in a {}", "wearing a {}", "with a {}"))
            tail = " " + wearing.format(f"{thing.color} {clothes}").replace("a o", "an o")
        elif thing.kind == "snowman":
            tail = f" with a {thing.color} scarf".replace("a o", "an o")
        else:
            adjectives.append(thing.color)
    phrase = " ".join([*adjectives, noun])
    if thing.count > 1:
        return rng.choice(_COUNTS[thing.count]) + " " + phrase + tail
    return (phrase if bare else with_article(phrase)) + tail


def _verb(thing: Thing, scene: Scene, rng: Random, participle: bool) -> str:
    """Return a finite verb ('sits', 'is sitting') or a participle ('sitting')."""
    kind = KINDS[thing.kind]
    verbs: tuple[str, ...]
    if thing.kind in _AIR_VERBS and scene.relation != "on":
        verbs = _AIR_VERBS[thing.kind]
    elif kind.habit == "water" and scene.place in ("lake", "beach"):
        verbs = _WATER_VERBS
    else:
        verbs = _VERBS[kind.group]
    verb = rng.choice([v for v in verbs if v.endswith(("ing", "ed", "left"))] or verbs)
    if participle:
        return verb.removeprefix("is ")
    verb = rng.choice(verbs)
    if thing.count == 1:
        return verb
    forms = {
        "is": "are",
        "stands": "stand",
        "sits": "sit",
        "flies": "fly",
        "floats": "float",
        "grows": "grow",
    }
    return " ".join(forms.get(part, part) for part in verb.split())


def _fragment(scene: Scene, style: Style, rng: Random) -> str:
    parts = [_noun_phrase(thing, style, rng, bare=True) for thing in scene.things]
    parts = parts[: rng.choice((1, 2, 3))]
    if scene.place != STUDIO and rng.random() < style.place:
        parts.append(_PLACE_NOUNS[scene.place])
    if rng.random() < 0.3:
        return "photo of " + " and ".join(parts)
    return rng.choice((", ", " ")).join(parts)


def _sentence(scene: Scene, style: Style, rng: Random) -> str:
    things = list(scene.things)
    opened = rng.random() < style.opener
    both_first = len(things) > 1 and not scene.relation
    first = _noun_phrase(things[0], style, rng)
    has_verb = rng.random() < style.verb
    verb = _verb(things[0], scene, rng, opened or both_first) if has_verb else ""
    has_place = rng.random() < style.place * (0.3 if scene.place == STUDIO else 1)
    place = rng.choice(_PLACES[scene.place]) if has_place else ""
    if len(things) > 1 and rng.random() < style.second:
        second = _noun_phrase(things[1], style, rng)
        if scene.relation and rng.random() < 0.85:
            if rng.random() < 0.2 and scene.relation != "on":
                first, second = second, first
                link = _INVERSE[scene.relation]
                verb = _verb(things[1], scene, rng, opened) if verb else ""
            else:
                link = rng.choice(_RELATIONS[scene.relation])
            core = " ".join(filter(None, (first, verb, link, second, place)))
        else:
            both = verb if verb.endswith("ing") and not verb.startswith(("is", "are")) else ""
            core = " ".join(filter(None, (first, "and", second, both, place)))
    else:
        core = " ".join(filter(None, (first, verb, place)))
    if len(things) > 2 and rng.random() < style.third:
        third = _noun_phrase(things[2], style, rng)
        core += " " + rng.choice(("with {}", "with {} nearby", "and {}")).format(third)
    if scene.place in OUTDOORS and scene.light in _LIGHTS and rng.random() < style.light:
        core += " " + rng.choice(_LIGHTS[scene.light])
    if place and rng.random() < style.place_first:
        core = f"{place} {core.replace(' ' + place, '', 1)}"
    elif opened and things[0].count == 1:
        core = f"{rng.choice(_OPENERS)} {core}"
    return core


def sample_caption(scene: Scene, style: str, rng: Random) -> str:
    """Return one annotator's caption of a scene, in lower case and without a full stop.

    Args:
        scene: The scene.
        style: Key of :data:`STYLES`.
        rng: Random generator of the annotator.
    """
    habits = STYLES[style]
    if rng.random() < habits.fragment:
        return _fragment(scene, habits, rng)
    return _sentence(scene, habits, rng)


def annotate(scene: Scene, style: str, seed: int | str, count: int = 5) -> list[str]:
    """Return up to ``count`` different captions of a scene, one per annotator.

    Args:
        scene: The scene.
        style: Key of :data:`STYLES`.
        seed: Seed of the annotators.
        count: Number of captions. Defaults to 5.
    """
    rng = Random(f"captions/{seed}")
    captions: dict[str, None] = {}
    for _ in range(20 * count):
        captions.setdefault(sample_caption(scene, style, rng))
        if len(captions) == count:
            break
    return list(captions)
