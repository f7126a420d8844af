"""Names of the data sets that a config can be tested on, other than its own."""

from pcm_plugin.packaged_files import CONFIGS

EVALUATIONS = CONFIGS / "_base_" / "eval"


def list_evaluations() -> list[str]:
    """Return the names that ``--eval-on`` accepts: the files of ``configs/_base_/eval``."""
    return sorted(path.stem for path in EVALUATIONS.glob("*.py"))


def folder_name(evaluation: str | None) -> str:
    """Return the name of the folder for the results of a test.

    Args:
        evaluation: One of :func:`list_evaluations`, or None for the data set of the config.
    """
    return evaluation or "in_domain"
