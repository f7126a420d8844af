"""Types of columns in different versions of pyarrow."""

from typing import Any


def is_string(kind: Any) -> bool:
    """Return whether a type of pyarrow is one of its types of strings."""
    return _is_any(kind, "string", "large_string", "string_view")


def is_binary(kind: Any) -> bool:
    """Return whether a type of pyarrow is one of its types of bytes of variable length."""
    return _is_any(kind, "binary", "large_binary", "binary_view")


def _is_any(kind: Any, *names: str) -> bool:
    from pyarrow import types

    # Versions before 16 have no views.
    checks = (getattr(types, f"is_{name}", None) for name in names)
    return any(check(kind) for check in checks if check is not None)
