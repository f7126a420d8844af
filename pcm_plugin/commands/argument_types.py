"""Types of command-line arguments."""

from argparse import ArgumentTypeError


def positive_integer(text: str) -> int:
    """Parse a positive integer.

    Raises:
        ArgumentTypeError: It is not one.
    """
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentTypeError(f"must be a positive integer, got {text}")
    return number
