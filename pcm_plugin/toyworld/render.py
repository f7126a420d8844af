"""Render a scene to a picture and the pixels of each thing."""

from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image, ImageFilter

from pcm_plugin.toyworld import drawings
from pcm_plugin.toyworld.pen import Color, Pen
from pcm_plugin.toyworld.places import draw_place
from pcm_plugin.toyworld.scene import STUDIO, Scene, Thing
from pcm_plugin.toyworld.things import KINDS, rgb

SIZE = 112
_SIZES = {"small": 0.78, "medium": 1.0, "large": 1.24}
_LIGHTS = {
    "day": (1.0, 1.0, 1.0),
    "sun": (1.12, 1.09, 0.96),
    "cloud": (0.86, 0.89, 0.94),
    "dusk": (1.05, 0.78, 0.66),
    "dark": (0.6, 0.63, 0.78),
}


@dataclass
class Picture:
    """A rendered scene.

    Attributes:
        image: RGB image of ``size`` x ``size``.
        masks: (number of things in the scene, size, size) bool, the visible pixels of each thing.
    """

    image: Image.Image
    masks: np.ndarray


@dataclass
class _Spot:
    """Position of one tile: center of its base, and its side, as shares of the picture's side."""

    index: int
    x: float
    base: float
    side: float
    depth: float


def _jitter(color: Color, rng: Random) -> Color:
    k = rng.uniform(0.88, 1.1)
    return tuple(max(0, min(255, round(c * k + rng.uniform(-10, 10)))) for c in color)  # type: ignore[return-value]


def _tile(thing: Thing, pixels: int, rng: Random) -> Image.Image:
    kind = KINDS[thing.kind]
    pen = Pen(144)
    getattr(drawings, thing.kind)(pen, _jitter(rgb(thing.color, kind), rng), rng)
    tile = pen.image
    if rng.random() < 0.5:
        tile = tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turn = rng.gauss(0, 10 if kind.habit == "air" or kind.group == "food" else 4)
    tile = tile.rotate(turn, Image.Resampling.BILINEAR)
    stretch = rng.uniform(0.88, 1.12)
    wide, high = max(8, round(pixels * stretch)), max(8, round(pixels / stretch))
    return tile.resize((wide, high), Image.Resampling.BOX)


def _base(thing: Thing, horizon: float, rng: Random) -> float:
    if KINDS[thing.kind].habit == "air" and rng.random() < 0.9:
        return rng.uniform(0.4, 0.56)
    return rng.uniform(max(horizon + 0.14, 0.68), 0.97)


def _layout(scene: Scene, horizon: float, rng: Random) -> list[_Spot]:
    """Return positions of the things of a scene that show their relation."""
    sides = [
        KINDS[t.kind].size * _SIZES[t.size] * rng.uniform(0.92, 1.08) * (1 if t.count == 1 else 0.8)
        for t in scene.things
    ]
    if scene.place == STUDIO:
        side = min(0.9, sides[0] * rng.uniform(1.0, 2.0)) / (1 + 0.3 * (scene.things[0].count - 1))
        centers = {0: (rng.uniform(0.3, 0.7), rng.uniform(0.55 + side / 2.5, 0.99))}
        sides = [side]
    else:
        slots = [0.25, 0.75] if len(scene.things) < 3 else [0.2, 0.55, 0.86]
        if len(scene.things) == 1:
            slots = [rng.uniform(0.3, 0.7)]
        rng.shuffle(slots)
        if scene.relation == "left of" and slots[0] > slots[1]:
            slots[0], slots[1] = slots[1], slots[0]
        if scene.relation == "right of" and slots[0] < slots[1]:
            slots[0], slots[1] = slots[1], slots[0]
        centers = {
            i: (slots[i] + rng.uniform(-0.05, 0.05), _base(t, horizon, rng))
            for i, t in enumerate(scene.things)
        }
        _relate(scene.relation, centers, sides, horizon, rng)
    spots = []
    for i, thing in enumerate(scene.things):
        x, base = centers[i]
        depth = base + (0.3 if scene.relation in ("on", "under") and i == 0 else 0)
        step = sides[i] * 0.85
        for k in range(thing.count):
            shift = (k - (thing.count - 1) / 2) * step
            low = base + rng.uniform(-0.03, 0.03) * (thing.count > 1)
            spots.append(_Spot(i, x + shift, low, sides[i], depth))
    return sorted(spots, key=lambda s: s.depth)


def _relate(
    relation: str | None,
    centers: dict[int, tuple[float, float]],
    sides: list[float],
    horizon: float,
    rng: Random,
) -> None:
    """Move the things, in place, to positions that show their relation."""
    if relation is None or relation in ("left of", "right of"):
        return
    (_, base0), (x1, base1) = centers[0], centers[1]
    side = rng.choice((-1, 1))
    if relation == "on":
        centers[0] = (x1 + rng.uniform(-0.08, 0.08), base1 - sides[1] * rng.uniform(0.5, 0.6))
    elif relation == "under":
        sides[1] *= 1.25
        sides[0] *= 0.8
        centers[1] = (x1, max(base1, 0.9))
        centers[0] = (x1 + rng.uniform(-0.06, 0.06), centers[1][1] + 0.01)
    elif relation == "behind":
        far = max(horizon + 0.1, 0.62)
        centers[1] = (x1, max(base1, 0.9))
        centers[0] = (x1 + side * sides[1] * rng.uniform(0.4, 0.55), far)
    elif relation == "in front of":
        centers[1] = (x1, max(horizon + 0.12, 0.66))
        centers[0] = (x1 + side * sides[1] * rng.uniform(0.35, 0.5), 0.97)
    elif relation == "above":
        centers[0] = (x1 + rng.uniform(-0.1, 0.1), max(0.3, base1 - sides[1] - 0.04))
    elif relation == "next to":
        gap = (sides[0] + sides[1]) / 2 * rng.uniform(0.85, 1.0)
        centers[0] = (x1 - gap if x1 > 0.5 else x1 + gap, base0 * 0.4 + base1 * 0.6)


def _illuminate(pixels: np.ndarray, light: str, rng: np.random.Generator) -> np.ndarray:
    """Add a tint, a brightness gradient, low-frequency noise and grain."""
    n = len(pixels)
    tint = np.array(_LIGHTS[light]) * rng.uniform(0.93, 1.07) + rng.normal(0, 0.02, 3)
    slope = rng.normal(0, 0.1, 2)
    axis = np.linspace(-0.5, 0.5, n)
    field = 1 + slope[0] * axis[:, None] + slope[1] * axis[None, :]
    small = Image.fromarray(rng.normal(0, 1, (8, 8)).astype(np.float32), mode="F")
    field = field + 0.035 * np.asarray(small.resize((n, n), Image.Resampling.BICUBIC))
    out = pixels * tint * field[..., None] + rng.normal(0, 4, pixels.shape)
    return np.clip(out, 0, 255).astype(np.uint8)


def render(scene: Scene, seed: int | str, size: int = SIZE) -> Picture:
    """Render a scene.

    Args:
        scene: The scene.
        seed: Seed of poses, positions, colors, details, lighting and grain.
        size: Side of the picture in pixels. Defaults to 112.
    """
    rng = Random(f"render/{seed}")
    horizon = rng.uniform(0.4, 0.56)
    canvas = draw_place(scene.place, horizon, 2 * size, rng)
    canvas = canvas.resize((size, size), Image.Resampling.BOX)
    owner = np.full((size, size), -1, np.int16)
    for spot in _layout(scene, horizon, rng):
        tile = _tile(scene.things[spot.index], round(spot.side * size), rng)
        half = tile.width / size / 2
        x = min(max(spot.x, half * 0.8), 1 - half * 0.8)
        base = min(max(spot.base, tile.height / size * 0.85), 1.02)
        left, top = round((x - half) * size), round(base * size - tile.height)
        if KINDS[scene.things[spot.index].kind].habit == "ground":
            shadow = Image.new("L", (size, size))
            shadow.paste(
                90,
                (
                    left + tile.width // 8,
                    top + tile.height - 3,
                    left + tile.width * 7 // 8,
                    top + tile.height + 2,
                ),
            )
            canvas.paste((30, 30, 40), mask=shadow.filter(ImageFilter.GaussianBlur(1.2)))
        canvas.paste(tile, (left, top), tile)
        layer = Image.new("L", (size, size))
        layer.paste(tile.getchannel("A"), (left, top))
        owner[np.asarray(layer) > 127] = spot.index
    noise = np.random.default_rng(rng.getrandbits(63))
    pixels = _illuminate(np.asarray(canvas, np.float32), scene.light, noise)
    masks = np.stack([owner == i for i in range(len(scene.things))])
    return Picture(Image.fromarray(pixels), masks)
