"""Declaration of the input files of a registered class, by constructor argument."""

import enum
from collections.abc import Mapping
from typing import ClassVar, NamedTuple


class FileKind(enum.Enum):
    """Format of an input file or folder."""

    CAPTIONER = "captioner file"
    CLIP_HEAD = "CLIP head"
    CONCEPT_SET = "concept set"
    FEATURE_STORE = "feature store"
    LANGUAGE_MODEL = "language model"
    VOCABULARY = "vocabulary"
    WORD_LIST = "concept set or list of words"


class RequiredFile(NamedTuple):
    """Input file that a config names.

    Attributes:
        key: Dotted key of the config that holds the path, e.g. ``'model.neck.concepts'``.
        kind: Format of the file.
        path: Its path.
    """

    key: str
    kind: FileKind
    path: str


class ReadsFiles:
    """Base class of registered classes with constructor arguments that name input files.

    Attributes:
        input_files: Format of each file by the name of its constructor argument. An argument that
            is None names no file.
    """

    input_files: ClassVar[Mapping[str, FileKind]] = {}
