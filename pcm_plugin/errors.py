"""How a command says what is wrong with its input."""

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """End the process with code 1 and the message alone where input or files are at fault.

    What a user can fix is raised as OSError, ValueError or, by open_clip, RuntimeError. Anything
    else is a fault of the program and keeps its traceback. A closed pipe ends the process silently.

    Raises:
        SystemExit: With the message, in place of such an error.
    """
    try:
        yield
    except NotImplementedError:  # a RuntimeError too, but of the program
        raise
    except BrokenPipeError:
        # The reader of the output has what it wanted, as `| head` does. Python would complain once
        # more when it flushes the output at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(str(error) or type(error).__name__)
