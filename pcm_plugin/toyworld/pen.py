"""Drawing primitives on a unit square."""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

Color = tuple[int, int, int]
Point = tuple[float, float]


def shade(color: Color, factor: float) -> Color:
    """Darken (``factor`` < 1) or lighten (``factor`` > 1) an RGB color."""
    if factor <= 1:
        return tuple(round(c * factor) for c in color)  # type: ignore[return-value]
    return tuple(round(255 - (255 - c) / factor) for c in color)  # type: ignore[return-value]


class Pen:
    """Pen that draws on a transparent square tile.

    Coordinates are from 0 to 1; x points to the right and y points down.

    Args:
        pixels: Side of the tile in pixels. Defaults to 144.
    """

    def __init__(self, pixels: int = 144) -> None:
        self.image = Image.new("RGBA", (pixels, pixels), (0, 0, 0, 0))
        self._draw = ImageDraw.Draw(self.image)
        self._n = pixels

    def _xy(self, points: Sequence[Point]) -> list[tuple[float, float]]:
        return [(x * self._n, y * self._n) for x, y in points]

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, color: Color) -> None:
        """Fill an ellipse with center (cx, cy)."""
        self._draw.ellipse(self._xy([(cx - rx, cy - ry), (cx + rx, cy + ry)]), fill=color)

    def ring(self, cx: float, cy: float, r: float, width: float, color: Color) -> None:
        """Draw a circular line of ``width``, inside of the radius."""
        box = self._xy([(cx - r, cy - r), (cx + r, cy + r)])
        self._draw.ellipse(box, outline=color, width=max(1, round(width * self._n)))

    def pie(self, cx: float, cy: float, r: float, start: float, end: float, color: Color) -> None:
        """Fill a circular sector. Angles are in degrees, clockwise from three o'clock."""
        self._draw.pieslice(self._xy([(cx - r, cy - r), (cx + r, cy + r)]), start, end, fill=color)

    def rect(
        self, x0: float, y0: float, x1: float, y1: float, color: Color, round_by: float = 0.0
    ) -> None:
        """Fill a rectangle with corners of radius ``round_by``."""
        box = self._xy([(x0, y0), (x1, y1)])
        if round_by:
            self._draw.rounded_rectangle(box, radius=round_by * self._n, fill=color)
        else:
            self._draw.rectangle(box, fill=color)

    def poly(self, points: Sequence[Point], color: Color) -> None:
        """Fill a polygon."""
        self._draw.polygon(self._xy(points), fill=color)

    def line(self, points: Sequence[Point], width: float, color: Color) -> None:
        """Draw a line with round ends and joints."""
        pixels = max(1, round(width * self._n))
        self._draw.line(self._xy(points), fill=color, width=pixels, joint="curve")
        for x, y in points:
            r = width / 2
            self.ellipse(x, y, r, r, color)

    def arc(
        self,
        cx: float,
        cy: float,
        rx: float,
        ry: float,
        start: float,
        end: float,
        width: float,
        color: Color,
    ) -> None:
        """Draw an elliptical arc. Angles are in degrees, clockwise from three o'clock."""
        steps = max(3, int(abs(end - start) / 15))
        angles = [math.radians(start + (end - start) * i / steps) for i in range(steps + 1)]
        self.line([(cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles], width, color)
