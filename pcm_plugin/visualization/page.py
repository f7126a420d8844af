"""Web pages that stand alone: one file, no script, nothing fetched."""

import base64
import html
import io
from collections.abc import Iterable, Sequence

from PIL import Image

from pcm_plugin.visualization.sheet import SheetEntry, concept_colours, draw_mixup

_STYLE = """
:root { color-scheme: light dark; --paper: #eceef1; --card: #fff; --line: #d5d9df; --ink: #14181f;
  --soft: #59626f; --faint: #e8ebef; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181f; --card: #1f252e; --line: #343c48;
  --ink: #eceef1; --soft: #a4adba; --faint: #2c333e; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1200px; padding: 16px; background: var(--paper);
  color: var(--ink); font: 16px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: .4em 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 1.6em 0 .5em; }
p.note { color: var(--soft); margin: .3em 0 1em; }
.cards { display: grid; gap: 14px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  overflow: hidden; }
.card > img { display: block; width: 100%; height: auto; } .card > div { padding: 10px 14px 14px; }
.caption { font-size: 1.1rem; margin: .1em 0 .4em; overflow-wrap: anywhere; }
.title, .card li { color: var(--soft); font-size: .88rem; overflow-wrap: anywhere; }
.card ul { margin: .3em 0; padding-left: 1.2em; }
.bar { display: grid; grid-template-columns: 7em 1fr 3em; gap: 8px; align-items: center;
  font-size: .88rem; overflow-wrap: anywhere; }
.bar > span:last-child { text-align: right; color: var(--soft); }
.bar i { display: block; height: 10px; border-radius: 3px; background: var(--faint); }
.bar b { display: block; height: 10px; border-radius: 3px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; background: var(--card); }
td, th { border: 1px solid var(--line); padding: 4px 10px; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.charts { display: grid; gap: 14px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); }
.chart { background: #fff; border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
.chart svg { display: block; width: 100%; height: auto; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px;
  overflow-x: auto; font-size: .82rem; }
"""


def page(title: str, sections: Iterable[tuple[str, str]]) -> str:
    """A page.

    Args:
        title: Its title, plain text.
        sections: Heading (plain text, may be empty) and HTML of each.

    Returns:
        HTML that opens without a network, on a phone too.
    """
    parts = []
    for heading, content in sections:
        parts.append((f"<h2>{escape(heading)}</h2>\n" if heading else "") + content)
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Without an icon of its own a browser asks the server for one.
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{body}\n</body>\n"
        "</html>\n"
    )


def captions_page(entries: Sequence[SheetEntry], grid: tuple[int, int], title: str) -> str:
    """A page of images with captions, concepts and mixed patches.

    Args:
        entries: The images, in reading order.
        grid: Rows and columns of the patches.
        title: Of the page.
    """
    return page(title, [("", cards(image_card(entry, grid) for entry in entries))])


def cards(items: Iterable[str]) -> str:
    """Cards beside each other, as many as the screen has room for."""
    return '<div class="cards">\n' + "\n".join(items) + "\n</div>"


def image_card(entry: SheetEntry, grid: tuple[int, int], note: str = "") -> str:
    """A card: the image with its mixed patches, its caption, references and concepts.

    Args:
        entry: The image.
        grid: Rows and columns of the patches.
        note: A line beside its title, such as a score.
    """
    title = " · ".join(text for text in (entry.title, note) if text)
    references = "".join(f"<li>{escape(text)}</li>" for text in entry.references)
    return (
        f'<div class="card">{inline_image(draw_mixup(entry, grid), entry.caption)}<div>'
        f'<div class="title">{escape(title)}</div><p class="caption">{escape(entry.caption)}</p>'
        + (f"<ul>{references}</ul>" if references else "")
        + f"{concept_bars(entry)}</div></div>"
    )


def concept_bars(entry: SheetEntry) -> str:
    """An image's concepts with their probabilities, in the colours of their patches' outlines."""
    colours = concept_colours(entry)
    return "".join(
        f'<div class="bar"><span>{escape(name)}</span><i><b style="width:{100 * share:.0f}%;'
        f'background:{colours[name]}"></b></i><span>{100 * share:.0f} %</span></div>'
        for name, share in entry.concepts
    )


def inline_image(image: Image.Image, text: str) -> str:
    """An image inside of the page, JPEG.

    Args:
        image: RGB.
        text: What is said where it cannot be seen.
    """
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f'width="{image.width}" height="{image.height}"'
    return f'<img src="data:image/jpeg;base64,{data}" alt="{escape(text)}" {size}>'


def table(head: Sequence[str], rows: Iterable[Sequence[str | float]]) -> str:
    """A table; numbers stand at the right, with two digits after the point."""
    lines = ["".join(f"<th>{escape(text)}</th>" for text in head)]
    for row in rows:
        cells = [
            f"<td>{escape(cell)}</td>"
            if isinstance(cell, str)
            else f'<td class="number">{cell:,.2f}</td>'
            for cell in row
        ]
        lines.append("".join(cells))
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table>\n{body}\n</table></div>'


def escape(text: str) -> str:
    """Plain text as HTML."""
    return html.escape(str(text))
