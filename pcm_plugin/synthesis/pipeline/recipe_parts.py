"""Parts of a recipe: their settings from the values in its file."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from pcm_plugin.errors import MissingFileError, UserError


def refinement_with_photos(refine: dict[str, Any] | None, path: Path) -> dict[str, Any]:
    """Return the part ``refine`` of a recipe with photos, to which SynC assigns captions.

    Args:
        refine: That of the recipe; without one, SynC has its default settings.
        path: Recipe, for messages.

    Raises:
        UserError: If it has another method.
    """
    refine = refine or {"method": "sync"}
    if refine.get("method", "sync") != "sync":
        raise UserError(
            f"recipe {path}: refine.method must be 'sync' with photos, got {refine['method']!r}: "
            "it keeps each caption with its own image"
        )
    return refine


def build_part(kind: Any, settings: dict[str, Any], path: Path, part: str) -> Any:
    """Build the settings of a part.

    Args:
        kind: Dataclass of the settings.
        settings: Their values.
        path: Recipe, for messages.
        part: Name of the part.

    Raises:
        MissingFileError: If a file is missing.
        UserError: If a setting is unknown or invalid.
    """
    known = {f.name for f in fields(kind)}
    wrong = sorted(settings.keys() - known)
    if wrong:
        raise UserError(
            f"recipe {path}: {part} has no setting {', '.join(wrong)}; its settings are "
            f"{', '.join(sorted(known))}"
        )
    try:
        return kind(**settings)
    except MissingFileError as error:
        raise MissingFileError(f"recipe {path}: {part}: {error}") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"recipe {path}: {part}: {error}") from None
