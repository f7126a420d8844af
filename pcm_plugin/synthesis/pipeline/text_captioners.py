"""Captioners that train on the captions of a text recipe."""

from typing import NamedTuple


class TextCaptioner(NamedTuple):
    """Captioner that trains on the captions of a text recipe.

    Attributes:
        title: Its name in messages.
        config: Name of its config in the folder of the data set.
        base: Config in ``configs`` that this one inherits.
    """

    title: str
    config: str
    base: str


TEXT_CAPTIONERS = {
    "prefix": TextCaptioner("prefix captioner", "config.py", "prefix/prefix_text_custom.py"),
    "capdec": TextCaptioner("CapDec", "capdec.py", "capdec/capdec_custom.py"),
    "decap": TextCaptioner("DeCap", "decap.py", "decap/decap_custom.py"),
}
"""Captioners of a text recipe by their names in its part ``model``. The first is the default."""
