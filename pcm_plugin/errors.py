"""Errors that a user can fix, and how a command prints them."""

import contextlib
import os
import sys
from collections.abc import Iterator


class UserError(ValueError):
    """Invalid input, settings or files, with a message that names the value and the fix."""


class MissingFileError(FileNotFoundError, UserError):
    """A required file or folder that does not exist."""


class MissingPackageError(ImportError, UserError):
    """A required package that is not installed, or too old."""


class LockedError(BlockingIOError, UserError):
    """A file or folder that another process is writing."""


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Exit with code 1 and only the message on an error that the user can fix.

    These are :class:`UserError`, and errors of the operating system such as a full disk or missing
    permissions. Every other exception is a defect of the program and keeps its traceback. A closed
    output pipe ends the process without a message, and so does Ctrl-C, with code 130.

    Raises:
        SystemExit: In place of such an error.
    """
    try:
        try:
            yield
        finally:
            # At exit, Python would report a closed pipe with a message and another code.
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output has closed it, as `| head` does. Python would report this once
        # more when it flushes the output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except UserError as error:
        sys.exit(str(error) or type(error).__name__)
    except OSError as error:
        if error.errno is None:
            raise
        sys.exit(str(error))
