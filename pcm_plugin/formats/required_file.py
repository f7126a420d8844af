"""Declaration of the input files of a registered class, by constructor argument."""

import enum
from collections.abc import Mapping
from typing import ClassVar, NamedTuple


class FileKind(enum.Enum):
    """Kind of an input file or folder."""

    CLIP_HEAD = "CLIP head"
    CONCEPT_SET = "concept set"
    ENTITY_SET = "concept set of the entities that a prompt names"
    FEATURE_STORE = "feature store"
    GROUPS = "groups of images"
    IMAGE_FOLDER = "folder of images"
    LANGUAGE_MODEL = "language model"
    OBJECT_LABELS = "object labels"
    PAIR_SELECTION = "pair selection"
    REFERENCES = "references of images"
    REFINED_FEATURES = "refined features"
    TOKENIZER = "tokenizer"
    VOCABULARY = "vocabulary"
    WORD_LIST = "concept set or list of words"


class RequiredFile(NamedTuple):
    """Input file that a config names.

    Attributes:
        key: Dotted key of the config that holds the path, e.g. ``'model.neck.concepts'``.
        kind: Kind of the file.
        path: Its path.
    """

    key: str
    kind: FileKind
    path: str


class ReadsFiles:
    """Base class of registered classes with constructor arguments that name input files.

    Attributes:
        input_files: Kind of each file by the name of its constructor argument. An argument that is
            None names no file.
    """

    input_files: ClassVar[Mapping[str, FileKind]] = {}
