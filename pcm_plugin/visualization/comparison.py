"""Web page with the captions of several systems side by side."""

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from pcm_plugin.visualization.page import jpeg_url, render


class ComparedCaption(NamedTuple):
    """Caption of an image by one system.

    Attributes:
        system: Name of the system.
        caption: The caption.
        score: Score of the caption as text, such as ``'CIDEr 104.2'``; may be empty.
    """

    system: str
    caption: str
    score: str = ""


class ComparedImage(NamedTuple):
    """An image with the captions of all systems.

    Attributes:
        image: RGB image.
        title: Name of the image.
        references: Reference captions, if any.
        captions: Captions in the order of the systems.
    """

    image: Image.Image
    title: str
    references: Sequence[str]
    captions: Sequence[ComparedCaption]


def comparison_page(
    title: str,
    notes: Sequence[str],
    head: Sequence[str],
    rows: Sequence[Sequence[str | float]],
    images: Sequence[ComparedImage],
) -> str:
    """Render a page with a table of scores and the captions of each image.

    Args:
        title: Title of the page.
        notes: Remarks below the table, such as how scores are computed.
        head: Column names of the table of scores.
        rows: A row for each system.
        images: The images.

    Returns:
        HTML document without references to other files.
    """
    return render(
        "comparison.html",
        title=title,
        notes=notes,
        head=head,
        rows=rows,
        cards=[(jpeg_url(entry.image), entry) for entry in images],
    )
