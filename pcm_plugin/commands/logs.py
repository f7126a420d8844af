"""Logging of commands."""

import logging


def show_info() -> None:
    """Print messages of this package from level INFO to stderr, and others from WARNING."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("pcm_plugin").setLevel(logging.INFO)
