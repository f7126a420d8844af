"""How the importers read a released pickle: through an unpickler that admits little."""

import pickle
from pathlib import Path
from typing import Any


def load_restricted(path: Path, unpickler: type[pickle.Unpickler], what: str) -> Any:
    """Read a pickle; nothing that the unpickler does not admit is executed.

    Args:
        path: The file.
        unpickler: Its ``find_class`` raises for all that the file has no need of.
        what: What the file should be, for messages, ``'concept'`` or ``'annotation'``.

    Returns:
        What is in it, still to be checked.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read so.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {what} pickle at {path}")
    try:
        with open(path, "rb") as file:
            return unpickler(file).load()
    # A made-up pickle can fail in any way.
    except Exception as error:
        raise ValueError(f"{path} is not a released {what} list: {error}") from error
