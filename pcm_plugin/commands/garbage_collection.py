"""Faster imports: pause the garbage collector meanwhile."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def paused_garbage_collection() -> Iterator[None]:
    """Pause the search for reference cycles while modules are imported.

    Imports create hundreds of thousands of objects that live until the process ends. The search
    visits all of them again and again, which takes a fifth of the time of importing torch. After
    the imports they are excluded from later searches.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
