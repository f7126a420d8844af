"""Limits of the requests to the web page, so that one of them does not block the server."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pcm_plugin.errors import UserError

MAX_BEAM_SIZE = 10
MAX_CHARACTERS = 1000
MAX_PHRASES = 50


@dataclasses.dataclass(frozen=True)
class UploadLimits:
    """Limits of the uploads; see the options of ``pcm webui``.

    Attributes:
        images: Files that the tab *Folder* captions at once.
        megabytes: Size of a file, in units of 1,000,000 bytes.
        megapixels: Width times height of an image, in units of 1,000,000 pixels.
    """

    images: int = 1000
    megabytes: int = 50
    megapixels: int = 50

    def check_count(self, count: int) -> None:
        """Check the number of files.

        Raises:
            UserError: If there are too many.
        """
        if count > self.images:
            raise UserError(
                f"there are {count:,} files, and at most {self.images:,} are captioned at once: "
                "choose fewer, or start the server with a higher --max-images"
            )

    def check_pixels(self, num_pixels: int) -> None:
        """Check the size of an image.

        Raises:
            UserError: If it is too large.
        """
        if num_pixels > self.megapixels * 1_000_000:
            raise UserError(
                f"it has {num_pixels / 1e6:,.1f} million pixels, and at most {self.megapixels:,} "
                "million are accepted: save a smaller copy of it, or start the server with a "
                "higher --max-megapixels"
            )


def check_texts(settings: Mapping[str, Any]) -> None:
    """Check the lengths of the texts among settings of the search.

    Types are not checked; :class:`.DecodingConfig` does that.

    Raises:
        UserError: If a text is too long, or there are too many phrases.
    """
    for name in ("start", "prefix", "suffix"):
        check_length(f"`{name}`", settings.get(name, ""))
    for name in ("include", "exclude"):
        phrases = settings.get(name, ())
        if not isinstance(phrases, list):
            continue
        if len(phrases) > MAX_PHRASES:
            raise UserError(
                f"`{name}` must have at most {MAX_PHRASES} phrases, got {len(phrases):,}: leave "
                "some out"
            )
        for phrase in phrases:
            check_length(f"a phrase of `{name}`", phrase)


def check_length(name: str, text: Any) -> None:
    """Check the length of a text; other values pass.

    Args:
        name: Name of the text in the message.
        text: The text.

    Raises:
        UserError: If it is too long.
    """
    if isinstance(text, str) and len(text) > MAX_CHARACTERS:
        raise UserError(
            f"{name} must have at most {MAX_CHARACTERS:,} characters, got {len(text):,}: shorten it"
        )
