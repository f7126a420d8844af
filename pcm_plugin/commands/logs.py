"""Logging of commands."""

import logging


def show_info() -> None:
    """Log this package from level INFO and other packages from level WARNING, to stderr."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("pcm_plugin").setLevel(logging.INFO)
