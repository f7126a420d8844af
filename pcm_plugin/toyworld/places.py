"""Backgrounds: one function per place, drawn at twice the final size."""

from random import Random

from PIL import Image, ImageDraw

from pcm_plugin.toyworld.pen import Color, shade


class _Brush:
    """Brush for rectangles, ellipses and gradients on a unit square."""

    def __init__(self, pixels: int, rng: Random) -> None:
        self.image = Image.new("RGB", (pixels, pixels))
        self.draw = ImageDraw.Draw(self.image)
        self.n = pixels
        self.rng = rng

    def vary(self, color: Color, by: int = 14) -> Color:
        """Return a random variation of a color."""
        d = [self.rng.randint(-by, by) for _ in range(3)]
        return tuple(max(0, min(255, c + k)) for c, k in zip(color, d, strict=True))  # type: ignore[return-value]

    def band(self, y0: float, y1: float, top: Color, bottom: Color | None = None) -> None:
        start, stop = round(y0 * self.n), round(y1 * self.n)
        bottom = bottom or top
        for y in range(start, stop):
            t = (y - start) / max(1, stop - start)
            row = tuple(round(a + (b - a) * t) for a, b in zip(top, bottom, strict=True))
            self.draw.line([(0, y), (self.n, y)], fill=row)

    def rect(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
        n = self.n
        self.draw.rectangle([x0 * n, y0 * n, max(x0, x1) * n, max(y0, y1) * n], fill=color)

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, color: Color) -> None:
        n = self.n
        self.draw.ellipse([(cx - rx) * n, (cy - ry) * n, (cx + rx) * n, (cy + ry) * n], fill=color)

    def poly(self, points: list[tuple[float, float]], color: Color) -> None:
        self.draw.polygon([(x * self.n, y * self.n) for x, y in points], fill=color)

    def specks(self, count: int, y0: float, y1: float, r: float, color: Color) -> None:
        for _ in range(count):
            size = r * self.rng.uniform(0.5, 1.5)
            spot = self.rng.random(), self.rng.uniform(y0, y1)
            self.ellipse(*spot, size, size * 0.6, self.vary(color))

    def clouds(self, top: float) -> None:
        for _ in range(self.rng.randrange(4)):
            x, y = self.rng.random(), self.rng.uniform(0.03, top)
            for k in range(3):
                self.ellipse(x + 0.05 * k, y, 0.06, 0.025, (236, 240, 246))


def _sky(b: _Brush, horizon: float) -> None:
    b.band(0, horizon, b.vary((110, 170, 232)), b.vary((200, 224, 244)))
    b.clouds(horizon * 0.7)


def _park(b: _Brush, h: float) -> None:
    _sky(b, h)
    for _ in range(6):
        b.ellipse(b.rng.random(), h, b.rng.uniform(0.1, 0.2), 0.05, b.vary((70, 128, 70)))
    b.band(h, 1, b.vary((112, 176, 80)), b.vary((76, 140, 58)))
    if b.rng.random() < 0.5:
        x = b.rng.uniform(0.2, 0.8)
        path = [(x - 0.03, h), (x + 0.03, h), (x + 0.3, 1), (x - 0.1, 1)]
        b.poly(path, b.vary((206, 186, 144)))
    b.specks(30, h, 1, 0.008, (60, 118, 48))


def _beach(b: _Brush, h: float) -> None:
    _sky(b, h - 0.1)
    b.band(h - 0.1, h + 0.06, b.vary((34, 112, 178)), b.vary((80, 176, 200)))
    for _ in range(6):
        x, y = b.rng.random(), b.rng.uniform(h - 0.08, h + 0.03)
        b.rect(x, y, x + 0.1, y + 0.006, (196, 226, 236))
    b.band(h + 0.06, 1, b.vary((236, 216, 164)), b.vary((220, 190, 128)))
    b.specks(16, h + 0.1, 1, 0.009, (196, 168, 120))


def _street(b: _Brush, h: float) -> None:
    _sky(b, h)
    x = -0.1
    while x < 1:
        wide, top = b.rng.uniform(0.16, 0.3), b.rng.uniform(0.03, h * 0.6)
        wall = b.vary(b.rng.choice([(150, 120, 108), (168, 160, 150), (128, 134, 146)]))
        b.rect(x, top, x + wide, h, wall)
        for row in range(int((h - top) / 0.09)):
            for col in range(int(wide / 0.07)):
                wx, wy = x + 0.02 + col * 0.07, top + 0.03 + row * 0.09
                b.rect(wx, wy, wx + 0.035, wy + 0.05, b.vary((96, 112, 136), 24))
        x += wide
    b.band(h, h + 0.1, b.vary((182, 178, 172)))
    b.band(h + 0.1, 1, b.vary((96, 98, 104)), b.vary((70, 72, 78)))
    for k in range(5):
        x = k * 0.24 + b.rng.uniform(-0.03, 0.03)
        b.rect(x, h + 0.27, x + 0.12, h + 0.29, (226, 222, 200))


def _snow(b: _Brush, h: float) -> None:
    b.band(0, h, b.vary((164, 188, 214)), b.vary((222, 232, 242)))
    for _ in range(3):
        x, w, top = b.rng.random(), b.rng.uniform(0.2, 0.4), b.rng.uniform(0.08, h - 0.12)
        b.poly([(x - w, h), (x, top), (x + w, h)], b.vary((120, 136, 160)))
        cap = w * 0.35
        b.poly(
            [(x - cap, top + (h - top) * 0.35), (x, top), (x + cap, top + (h - top) * 0.35)],
            (244, 248, 252),
        )
    b.band(h, 1, b.vary((234, 240, 248), 6), b.vary((208, 220, 236), 6))
    for _ in range(4):
        b.ellipse(b.rng.random(), b.rng.uniform(h, 1), 0.2, 0.02, (222, 230, 242))
    b.specks(30, 0, 1, 0.006, (250, 250, 254))


def _desert(b: _Brush, h: float) -> None:
    b.band(0, h, b.vary((240, 178, 112)), b.vary((250, 222, 170)))
    b.ellipse(b.rng.uniform(0.1, 0.9), b.rng.uniform(0.08, 0.2), 0.06, 0.06, (255, 244, 200))
    for _ in range(3):
        b.ellipse(b.rng.random(), h + 0.02, b.rng.uniform(0.2, 0.4), 0.08, b.vary((214, 150, 86)))
    b.band(h, 1, b.vary((222, 160, 92)), b.vary((196, 126, 66)))
    for _ in range(5):
        y = b.rng.uniform(h + 0.04, 0.98)
        b.ellipse(b.rng.random(), y, 0.22, 0.012, b.vary((204, 140, 76)))
    b.specks(10, h, 1, 0.012, (136, 92, 60))


def _lake(b: _Brush, h: float) -> None:
    _sky(b, h)
    for _ in range(5):
        b.ellipse(b.rng.random(), h, b.rng.uniform(0.12, 0.3), 0.09, b.vary((64, 104, 84)))
    b.band(h, 0.86, b.vary((84, 150, 186)), b.vary((40, 96, 142)))
    for _ in range(16):
        x, y = b.rng.random(), b.rng.uniform(h + 0.02, 0.85)
        b.rect(x, y, x + b.rng.uniform(0.04, 0.14), y + 0.005, b.vary((130, 188, 212)))
    b.band(0.86, 1, b.vary((110, 140, 70)), b.vary((86, 112, 56)))
    for _ in range(8):
        x, y = b.rng.random(), b.rng.uniform(0.8, 0.95)
        b.rect(x, y - 0.08, x + 0.008, y, b.vary((82, 110, 50)))


def _kitchen(b: _Brush, h: float) -> None:
    wall = b.vary((222, 226, 214))
    b.band(0, h, wall)
    for k in range(1, 10):
        b.rect(k / 10, 0.2, k / 10 + 0.004, h, shade(wall, 0.88))
        b.rect(0, 0.2 + k * 0.05, 1, 0.204 + k * 0.05 if 0.2 + k * 0.05 < h else 0, wall)
    door = b.vary(b.rng.choice([(176, 140, 100), (150, 176, 176), (206, 196, 182)]))
    for k in range(4):
        b.rect(k * 0.25 + 0.01, 0, k * 0.25 + 0.24, 0.17, door)
        b.rect(k * 0.25 + 0.2, 0.12, k * 0.25 + 0.22, 0.15, shade(door, 0.6))
    b.rect(0, h - 0.1, 1, h - 0.06, b.vary((110, 106, 104)))
    b.rect(0, h - 0.06, 1, h, shade(door, 0.85))
    tile = b.vary((214, 206, 196))
    b.band(h, 1, tile)
    for i in range(8):
        for j in range(4):
            if (i + j) % 2:
                y = h + j * (1 - h) / 4
                b.rect(i / 8, y, (i + 1) / 8, y + (1 - h) / 4, shade(tile, 0.8))


def _living_room(b: _Brush, h: float) -> None:
    wall = b.vary(b.rng.choice([(206, 186, 160), (170, 190, 180), (196, 176, 192)]))
    b.band(0, h, wall)
    for k in range(12):
        b.rect(k / 12, 0, k / 12 + 0.012, h, shade(wall, 0.94))
    x = b.rng.uniform(0.05, 0.65)
    b.rect(x, 0.08, x + 0.28, 0.36, (240, 236, 226))
    b.rect(x + 0.02, 0.1, x + 0.26, 0.34, b.vary((158, 202, 230)))
    b.rect(x + 0.135, 0.1, x + 0.145, 0.34, (240, 236, 226))
    floor = b.vary((164, 112, 70))
    b.band(h, 1, floor, shade(floor, 0.8))
    for k in range(1, 5):
        b.rect(0, h + k * (1 - h) / 5, 1, h + k * (1 - h) / 5 + 0.006, shade(floor, 0.7))
    b.rect(0, h - 0.02, 1, h, (236, 230, 220))
    if b.rng.random() < 0.5:
        b.ellipse(b.rng.uniform(0.3, 0.7), 0.88, 0.35, 0.08, b.vary((130, 80, 90), 30))


def _studio(b: _Brush, h: float) -> None:
    color = tuple(b.rng.randint(90, 250) for _ in range(3))
    end = b.vary(color, 50)  # type: ignore[arg-type]
    b.band(0, 1, color, end)  # type: ignore[arg-type]
    if b.rng.random() < 0.4:
        b.band(h, 1, shade(end, 0.85))
    if b.rng.random() < 0.3:
        b.specks(20, 0, 1, 0.02, end)


_DRAW = {
    "park": _park,
    "beach": _beach,
    "street": _street,
    "snow": _snow,
    "desert": _desert,
    "lake": _lake,
    "kitchen": _kitchen,
    "living room": _living_room,
    "studio": _studio,
}


def draw_place(place: str, horizon: float, pixels: int, rng: Random) -> Image.Image:
    """Draw an empty place.

    Args:
        place: One of ``scene.PLACES``, or ``'studio'``.
        horizon: Height of the horizon, from 0 (top) to 1 (bottom).
        pixels: Side of the picture in pixels.
        rng: Random generator of colors and details.

    Returns:
        RGB image of ``pixels`` x ``pixels``.
    """
    brush = _Brush(pixels, rng)
    _DRAW[place](brush, horizon)
    return brush.image
