"""Settings in a recipe: vocabulary, concepts, validation, training, language model and photos."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.caption_vocabulary import CaptionVocabulary
from pcm_plugin.formats.languages import check_language
from pcm_plugin.formats.subword_vocabulary import SIZE, SubwordVocabulary
from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.formats.vocabulary_coverage import MAX_UNKNOWN_CAPTIONS
from pcm_plugin.formats.vocabulary_file import VOCABULARY_FILES, load_vocabulary
from pcm_plugin.synthesis.concepts.tagger import load_tagger
from pcm_plugin.synthesis.concepts.templates import TEMPLATES
from pcm_plugin.synthesis.pipeline.language_model import check_gpt2
from pcm_plugin.synthesis.refine.settings import POOL_IMAGES


@dataclass(frozen=True)
class VocabularySettings:
    """Settings of the vocabulary.

    Attributes:
        kind: ``'word'``, or ``'subword'`` for pieces of words, for languages without spaces between
            words or with many forms of words. Defaults to ``'word'``.
        size: Maximum number of indices of a subword vocabulary. Defaults to 4000.
        language: Code of the language of the captions, such as ``'zh'``, in which the captions of
            val and test are scored. Defaults to ``'en'``.
        min_count: How often a word, or a character and a piece, must occur in the captions.
            Defaults to 5.
        unk: Whether to append the word ``UNK`` for rare words, as in the released lists. Defaults
            to False: rare words are removed from captions.
        file: A vocabulary to use as it is, such as a released ``vocabulary.txt``, or for subwords a
            ``tokenizer.json``. Defaults to None.
        max_unknown_captions: Largest accepted share of captions without a single word of the
            vocabulary. Defaults to 0.05.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If a setting is out of range, or has no effect on this kind.
    """

    kind: str = "word"
    size: int = SIZE
    language: str = "en"
    min_count: int = 5
    unk: bool = False
    file: str | None = None
    max_unknown_captions: float = MAX_UNKNOWN_CAPTIONS

    def __post_init__(self) -> None:
        _check_file("vocabulary.file", self.file)
        check_language(self.language)
        if self.kind not in VOCABULARY_FILES:
            raise UserError(f"kind must be 'word' or 'subword', got {self.kind!r}")
        if self.kind == "word" and self.size != SIZE:
            raise UserError(f"size must be left out for kind='word', got {self.size}")
        if self.kind == "subword" and self.unk:
            raise UserError("unk must be False for kind='subword', which drops unknown characters")
        if self.file is not None and self.file.endswith(".json") != (self.kind == "subword"):
            wanted = "a .json file" if self.kind == "subword" else "a text file"
            raise UserError(f"file must be {wanted} for kind={self.kind!r}, got {self.file}")

    @property
    def file_name(self) -> str:
        """Name of the vocabulary in the folder of the corpus."""
        return VOCABULARY_FILES[self.kind]

    def build(self, captions: Iterable[str]) -> CaptionVocabulary:
        """Build the vocabulary, or read the file.

        Args:
            captions: The corpus, read at most once.

        Raises:
            UserError: If there are too few words, or too many characters.
        """
        if self.file is not None:
            return load_vocabulary(self.file)
        if self.kind == "subword":
            return SubwordVocabulary.build(captions, self.size, self.min_count)
        return Vocabulary.build(captions, self.min_count, self.unk)


@dataclass(frozen=True)
class ConceptSettings:
    """Settings of the concepts: the frequent nouns of the captions, or a word list.

    Attributes:
        min_count: How often a noun must occur in the captions. Defaults to 5.
        max_nouns: Keep only the most frequent nouns. Defaults to 500.
        phrases: Whether pairs of nouns become concepts too. Defaults to False.
        stop_list: File of nouns to omit, one per line. Defaults to
            :data:`~pcm_plugin.synthesis.concepts.nouns.STOP_WORDS`, or with a tagger to none.
        tagger: ``MODULE:FUNCTION`` of a tagger that finds the nouns of captions in any language,
            see :func:`~pcm_plugin.synthesis.concepts.tagger.load_tagger`. Defaults to None, the
            English one.
        words: File of the concepts, one per line, in place of the nouns.
        templates: Prompts over which embeddings are averaged, or a list with the name of a prompt
            set; see :func:`~pcm_plugin.synthesis.concepts.templates.resolve_templates`. Defaults to
            the prompt of the paper.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If ``templates`` is not a list, the tagger cannot be imported, or a setting has
            no effect.
    """

    min_count: int = 5
    max_nouns: int = 500
    phrases: bool = False
    stop_list: str | None = None
    tagger: str | None = None
    words: str | None = None
    templates: Sequence[str] = TEMPLATES

    def __post_init__(self) -> None:
        _check_file("concepts.stop_list", self.stop_list)
        _check_file("concepts.words", self.words)
        if self.tagger is not None:
            if self.words is not None:
                raise UserError(f"tagger has no effect with words={self.words}: leave one out")
            if self.phrases:
                raise UserError("phrases must be False with a tagger, which may return phrases")
            load_tagger(self.tagger)
        if isinstance(self.templates, str):
            raise UserError(f"templates must be a list of texts, got the text {self.templates!r}")


@dataclass(frozen=True)
class ValidationSettings:
    """Settings of the captions that are held out for validation on their generated images.

    Attributes:
        captions: Number of captions for validation. Defaults to 500.
        max_share: Largest share of the corpus that is not trained on: captions for validation and
            their near-duplicates. Defaults to 0.05.
        similarity: Captions are near-duplicates if at least this share of their words is in both,
            see :func:`~pcm_plugin.synthesis.pipeline.near_duplicates.find_near_duplicates`.
            Defaults to 0.8.
        seed: Seed of the choice. Defaults to 0.
        patience: Stop a training after this number of validations in a row without a better CIDEr.
            Defaults to None: train all epochs.

    Raises:
        UserError: If a setting is out of range.
    """

    captions: int = 500
    max_share: float = 0.05
    similarity: float = 0.8
    seed: int = 0
    patience: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("captions", 1), ("seed", 0), ("patience", 1)):
            value = getattr(self, name)
            if value is None and name == "patience":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"{name} must be an integer of at least {least}, got {value!r}")
        if not 0 < self.max_share < 1:
            raise UserError(
                f"max_share must be above 0 and below 1, got {self.max_share}: set validation=None "
                "to train on all captions"
            )
        if not 0 < self.similarity <= 1:
            raise UserError(f"similarity must be above 0 and at most 1, got {self.similarity}")


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the training of PCM-Net in the config of a data set.

    Attributes:
        average_epochs: Validate and save an exponential moving average of the weights, with a time
            constant of this many epochs (see
            :class:`~pcm_plugin.engine.average_hook.AverageWeightsHook`). Defaults to None: the
            weights themselves, as published.
        min_iterations: Train for more epochs than published if those have fewer iterations.
            Defaults to None: the published number of epochs, whatever the number of pairs.

    Raises:
        UserError: If one is not a positive number.
    """

    average_epochs: float | None = None
    min_iterations: int | None = None

    def __post_init__(self) -> None:
        epochs = self.average_epochs
        is_number = isinstance(epochs, int | float) and not isinstance(epochs, bool)
        if epochs is not None and not (is_number and 0 < epochs < math.inf):
            raise UserError(f"average_epochs must be a number above 0 or None, got {epochs!r}")
        least = self.min_iterations
        is_count = isinstance(least, int) and not isinstance(least, bool)
        if least is not None and not (is_count and least > 0):
            raise UserError(f"min_iterations must be an integer above 0 or None, got {least!r}")


@dataclass(frozen=True)
class LanguageModelSettings:
    """Settings of a small GPT-2 for a prefix captioner, which is trained from random weights.

    The attributes are the arguments of
    :func:`~pcm_plugin.synthesis.pipeline.language_model.build_gpt2`.

    Raises:
        UserError: If one is out of range.
    """

    vocab_size: int = 8192
    layers: int = 2
    width: int = 128
    heads: int = 4
    positions: int = 128

    def __post_init__(self) -> None:
        check_gpt2(**self.__dict__)


@dataclass(frozen=True)
class PhotoSettings:
    """Photos without captions, to which captions are assigned.

    Attributes:
        folder: Folder of the photos.
        images: ``'all'`` to assign captions to photos and to generated images, or ``'photos'`` to
            assign them to photos alone. Defaults to ``'all'``.

    Raises:
        MissingFileError: If there is no such folder.
        UserError: If ``folder`` is not set, or ``images`` is another value.
    """

    folder: str = ""
    images: str = "all"

    def __post_init__(self) -> None:
        if not self.folder:
            raise UserError("folder must be a folder of photos: pass it with --photos FOLDER")
        if self.images not in POOL_IMAGES:
            raise UserError(f"images must be one of {', '.join(POOL_IMAGES)}, got {self.images!r}")
        if not Path(self.folder).is_dir():
            raise MissingFileError(f"no folder of photos at {self.folder}")


def _check_file(name: str, path: str | None) -> None:
    if path is not None and not Path(path).is_file():
        raise MissingFileError(f"{name}: no file {path}")
