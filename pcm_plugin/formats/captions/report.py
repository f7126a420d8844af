"""Report on a caption file: counts and messages."""

from dataclasses import dataclass, field
from pathlib import Path

from pcm_plugin.formats.text.scripts import unspaced_warning

_SHOWN = 20


@dataclass
class CaptionReport:
    """Counts of a caption file.

    Attributes:
        path: Path of the file.
        format: Name of its format, e.g. ``'Flickr token file'``.
        captions: Number of captions.
        blank: Number of captions without a visible character, or marked as missing.
        duplicates: Number of captions with the text of an earlier one; they are not skipped.
        invalid: Number of captions that cannot be read.
        other_splits: Number of captions of splits that were not requested.
        rejected: Number of captions that the file marks as rejected or canned.
        damaged: Number of captions with U+FFFD, which replaces characters that an earlier
            conversion lost.
        unspaced: Number of captions in a script without spaces between words.
        ids_of_images: Whether the ids in the file are ids of images.
        without_image: Number of captions with neither an id nor a file of their image.
        no_image: Location of the first of these.
        splits: Splits of the file.
        examples: Messages about the first invalid captions.
    """

    path: Path
    format: str = ""
    captions: int = 0
    blank: int = 0
    duplicates: int = 0
    invalid: int = 0
    other_splits: int = 0
    rejected: int = 0
    damaged: int = 0
    unspaced: int = 0
    ids_of_images: bool = False
    without_image: int = 0
    no_image: str = ""
    splits: set[str] = field(default_factory=set)
    examples: list[str] = field(default_factory=list)

    def add_invalid(self, message: str) -> None:
        """Count a caption that cannot be read, and keep the first messages."""
        self.invalid += 1
        if len(self.examples) < _SHOWN:
            self.examples.append(message)

    def __str__(self) -> str:
        """Return a line of counts and a line for each message."""
        counts = [f"{self.captions:,} captions"]
        remarks = {
            "of other splits": self.other_splits,
            "blank": self.blank,
            "duplicates": self.duplicates,
            "rejected or canned, skipped": self.rejected,
            "with U+FFFD, which stands for characters that an earlier conversion lost": (
                self.damaged
            ),
            "in a script without spaces between words": self.unspaced,
            "invalid, skipped": self.invalid,
        }
        counts += [f"{count:,} {remark}" for remark, count in remarks.items() if count]
        lines = [f"{self.path} ({self.format}): {', '.join(counts)}"]
        if self.ids_of_images:
            lines.append(
                "  ids are repeated: taken as ids of images, whose captions get ID#1, ID#2, ..."
            )
        lines += [f"  {example}" for example in self.examples]
        if self.invalid > len(self.examples):
            lines.append(f"  and {self.invalid - len(self.examples):,} more")
        warning = unspaced_warning(self.unspaced, self.captions)
        if warning is not None:
            lines.append(f"  WARNING: {warning}.")
        return "\n".join(lines)
