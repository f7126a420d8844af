"""Reader of released pickles with a restricted unpickler."""

import pickle
from pathlib import Path
from typing import Any

from pcm_plugin.errors import MissingFileError, UserError


def load_restricted(path: Path, unpickler: type[pickle.Unpickler], what: str) -> Any:
    """Read a pickle; nothing that the unpickler does not accept is executed.

    Args:
        path: The file.
        unpickler: Unpickler whose ``find_class`` raises for everything that is not needed.
        what: Kind of the file for messages, ``'concept'`` or ``'annotation'``.

    Returns:
        Its content, not validated.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If it cannot be read in this way.
    """
    if not path.is_file():
        raise MissingFileError(f"no {what} pickle at {path}")
    try:
        with open(path, "rb") as file:
            return unpickler(file).load()
    # A malicious or broken pickle can fail in any way.
    except Exception as error:
        raise UserError(f"{path} is not a released {what} list: {error}") from error
