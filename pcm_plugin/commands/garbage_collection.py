"""Pausing of the garbage collector, which makes imports faster."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def paused_garbage_collection() -> Iterator[None]:
    """Pause the search for reference cycles while modules are imported.

    Imports create hundreds of thousands of objects that live until the process ends, and each
    search visits all of them (``benchmarks/startup.py`` measures its cost). After the imports they
    are excluded from later searches.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
