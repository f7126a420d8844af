"""Charts as SVG elements for a page."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_SIZE = (5.4, 3.4)  # inches
# Text stays text, and equal charts are equal bytes.
_SETTINGS: Any = {"svg.fonttype": "none", "svg.hashsalt": "pcm_plugin", "font.family": "sans-serif"}


def line_chart(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], xlabel: str, ylabel: str
) -> Markup:
    """Draw several series as lines.

    Args:
        series: Name to x and y values of the series.
        xlabel: Label of the x axis.
        ylabel: Label of the y axis.

    Returns:
        SVG element.
    """
    figure, axes = _empty(xlabel, ylabel)
    for name, (xs, ys) in series.items():
        marker = "o" if len(xs) < 40 else None
        axes.plot(xs, ys, label=name, marker=marker, markersize=3, linewidth=1.4)
    if len(series) > 1:
        columns = min(3, len(series))
        figure.legend(loc="outside upper center", fontsize=8, frameon=False, ncols=columns)
    return _svg(figure)


def histogram(
    values: np.ndarray, xlabel: str, ylabel: str, marks: Mapping[str, float] | None = None
) -> Markup:
    """Draw a histogram.

    Args:
        values: (n,) float.
        xlabel: Label of the x axis.
        ylabel: Label of the y axis.
        marks: Name to value of vertical lines. Defaults to None.

    Returns:
        SVG element.
    """
    figure, axes = _empty(xlabel, ylabel)
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


def _empty(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    return figure, axes


def _svg(figure: Figure) -> Markup:
    text = io.StringIO()
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(text, format="svg", metadata={"Date": None})
    # The XML declaration and doctype before the element are for a separate file. Matplotlib
    # escapes labels.
    return Markup("<svg" + text.getvalue().partition("<svg")[2])
