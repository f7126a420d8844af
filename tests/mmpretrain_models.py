"""Skipping of tests if mmpretrain's models cannot be imported."""

import functools
import importlib.metadata

import pytest


@functools.cache
def import_error() -> str | None:
    """Return the error of ``import mmpretrain.models``, or None.

    It is cached, since a second import raises another error.
    """
    try:
        import mmpretrain.models  # noqa: F401
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def skip_without_mmpretrain_models() -> None:
    if import_error():
        version = importlib.metadata.version("transformers")
        pytest.skip(f"mmpretrain's models cannot be imported with transformers {version}")


def skip_without_models_of(config: str) -> None:
    """Skip the test of a config that builds mmpretrain's models."""
    if "blip" in config:
        skip_without_mmpretrain_models()
