"""HTML of captioned images: self-contained pages and fragments for the web UI.

The markup is in ``templates/``. Values are escaped by Jinja; a template that uses a value it was
not given raises an error.
"""

import base64
import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from pcm_plugin.visualization.entry import SheetEntry, concept_colors
from pcm_plugin.visualization.mixup_image import draw_mixup

_TEMPLATES = Path(__file__).parent / "templates"


class ConceptBar(NamedTuple):
    """One concept of an image, drawn as a bar.

    Attributes:
        name: The concept.
        probability: Its probability, from 0 to 1.
        color: Color of the bar and of the outlines of its patches, ``#rrggbb``.
    """

    name: str
    probability: float
    color: str


class Card(NamedTuple):
    """One image of a page, with the text next to it.

    Attributes:
        image_url: ``data:`` URL of the image with its mixed patches.
        size: Width and height of the image in pixels.
        title: Name of the image, and a note such as a score.
        caption: Predicted caption.
        references: Reference captions.
        concepts: Predicted concepts, most likely first.
    """

    image_url: str
    size: tuple[int, int]
    title: str
    caption: str
    references: Sequence[str]
    concepts: Sequence[ConceptBar]


def render(template: str, **values: Any) -> str:
    """Render a template to HTML.

    Args:
        template: File name in ``templates/``.
        values: Values of its variables. Strings are plain text and are escaped, unless they are
            ``markupsafe.Markup``.

    Raises:
        jinja2.UndefinedError: If the template uses a variable that is not in ``values``.
    """
    return _environment().get_template(template).render(values)


def style_sheet(name: str) -> str:
    """Return the text of a CSS file in ``templates/``."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def captions_page(entries: Sequence[SheetEntry], grid: tuple[int, int], title: str) -> str:
    """Render a page of images with their captions, concepts and mixed patches.

    Args:
        entries: The images, in reading order.
        grid: Rows and columns of the patches.
        title: Title of the page.

    Returns:
        HTML document without references to other files.
    """
    return render("captions.html", title=title, cards=[make_card(entry, grid) for entry in entries])


def make_card(entry: SheetEntry, grid: tuple[int, int], note: str = "") -> Card:
    """Return the card of an image.

    Args:
        entry: The image.
        grid: Rows and columns of the patches.
        note: Text after the title, such as a score. Defaults to none.
    """
    image = draw_mixup(entry, grid)
    title = " · ".join(text for text in (entry.title, note) if text)
    return Card(
        jpeg_url(image), image.size, title, entry.caption, entry.references, concept_bars(entry)
    )


def concept_bars(entry: SheetEntry) -> list[ConceptBar]:
    """Return the concepts of an image with their colors in its drawing."""
    colors = concept_colors(entry)
    return [ConceptBar(name, share, colors[name]) for name, share in entry.concepts]


def jpeg_url(image: Image.Image) -> str:
    """Return an RGB image as a ``data:`` URL of a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
