"""Charts as SVG that stands inside of a page."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_SIZE = (5.4, 3.4)
# Text stays text, and equal charts are equal bytes.
_SETTINGS: Any = {"svg.fonttype": "none", "svg.hashsalt": "pcm_plugin", "font.family": "sans-serif"}


def curves(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str) -> str:
    """Lines of several series.

    Args:
        series: Name to the values along x and y.
        x: What x is.
        y: What y is.

    Returns:
        SVG.
    """
    figure, axes = _empty(x, y)
    for name, (places, values) in series.items():
        mark = "o" if len(places) < 40 else None
        axes.plot(places, values, label=name, marker=mark, markersize=3, linewidth=1.4)
    if len(series) > 1:
        columns = min(3, len(series))
        figure.legend(loc="outside upper center", fontsize=8, frameon=False, ncols=columns)
    return _svg(figure)


def histogram(values: np.ndarray, x: str, y: str, marks: Mapping[str, float] | None = None) -> str:
    """How often values come.

    Args:
        values: (n,).
        x: What the values are.
        y: What is counted.
        marks: Values to point out, by name.

    Returns:
        SVG.
    """
    figure, axes = _empty(x, y)
    axes.hist(values, bins=min(60, max(5, len(values) // 10)), color="#0072b2")
    for name, value in (marks or {}).items():
        axes.axvline(value, color="#d55e00", linewidth=1.2)
        axes.annotate(
            f"{name} {value:.3f}",
            (value, 0.97),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            fontsize=8,
            va="top",
        )
    return _svg(figure)


def _empty(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    return figure, axes


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(text, format="svg", metadata={"Date": None})
    # What stands before it belongs to a file of its own.
    return f'<div class="chart"><svg{text.getvalue().partition("<svg")[2]}</div>'
