"""How the importers read a released pickle: through an unpickler that admits little."""

import pickle
from pathlib import Path
from typing import Any

from pcm_plugin.errors import MissingFileError, UserError


def load_restricted(path: Path, unpickler: type[pickle.Unpickler], what: str) -> Any:
    """Read a pickle; nothing that the unpickler does not admit is executed.

    Args:
        path: The file.
        unpickler: Its ``find_class`` raises for all that the file has no need of.
        what: What the file should be, for messages, ``'concept'`` or ``'annotation'``.

    Returns:
        What is in it, still to be checked.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If it cannot be read so.
    """
    if not path.is_file():
        raise MissingFileError(f"no {what} pickle at {path}")
    try:
        with open(path, "rb") as file:
            return unpickler(file).load()
    # A made-up pickle can fail in any way.
    except Exception as error:
        raise UserError(f"{path} is not a released {what} list: {error}") from error
