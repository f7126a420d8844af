"""Logging of commands."""

import logging


def show_info() -> None:
    """Print messages of this package to stderr from level INFO, and those of others from WARNING."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("pcm_plugin").setLevel(logging.INFO)
