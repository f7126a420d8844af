"""Recipes: all settings of a data set in one file of Python, YAML or JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mmengine.config import Config

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import sha256
from pcm_plugin.formats.vocabulary_coverage import MAX_UNKNOWN_CAPTIONS
from pcm_plugin.packaged_files import CONFIGS
from pcm_plugin.synthesis.concepts.templates import TEMPLATES
from pcm_plugin.synthesis.extract.annotation_scores import refuse_missing_scores
from pcm_plugin.synthesis.extract.settings import ExtractSettings
from pcm_plugin.synthesis.generate.settings import GenerateSettings
from pcm_plugin.synthesis.refine.settings import RefineSettings

RECIPES = CONFIGS / "recipes"


@dataclass(frozen=True)
class VocabularySettings:
    """Settings of the vocabulary.

    Attributes:
        min_count: How often a word must occur in the captions. Defaults to 5.
        unk: Whether to append the word ``UNK`` for rare words, as in the released lists. Defaults
            to False: rare words are removed from captions.
        file: A ``vocabulary.txt`` to use as it is, such as a released one. Defaults to None.
        max_unknown_captions: Largest accepted share of captions without a single word of the
            vocabulary. Defaults to 0.05.

    Raises:
        MissingFileError: If the file does not exist.
    """

    min_count: int = 5
    unk: bool = False
    file: str | None = None
    max_unknown_captions: float = MAX_UNKNOWN_CAPTIONS

    def __post_init__(self) -> None:
        _check_file("vocabulary.file", self.file)


@dataclass(frozen=True)
class ConceptSettings:
    """Settings of the concepts: the frequent nouns of the captions, or a word list.

    Attributes:
        min_count: How often a noun must occur in the captions. Defaults to 5.
        max_nouns: Keep only the most frequent nouns. Defaults to 500.
        phrases: Whether pairs of nouns become concepts too. Defaults to False.
        stop_list: File of nouns to omit, one per line. Defaults to
            :data:`~pcm_plugin.synthesis.concepts.nouns.STOP_WORDS`.
        words: File of the concepts, one per line. Required if captions are not in English.
        templates: Prompts over which embeddings are averaged, or a list with the name of a prompt
            set; see :func:`~pcm_plugin.synthesis.concepts.templates.resolve_templates`. Defaults to
            the prompt of the paper.

    Raises:
        MissingFileError: If the file does not exist.
        UserError: If ``templates`` is not a list.
    """

    min_count: int = 5
    max_nouns: int = 500
    phrases: bool = False
    stop_list: str | None = None
    words: str | None = None
    templates: Sequence[str] = TEMPLATES

    def __post_init__(self) -> None:
        _check_file("concepts.stop_list", self.stop_list)
        _check_file("concepts.words", self.words)
        if isinstance(self.templates, str):
            raise UserError(f"templates must be a list of texts, got the text {self.templates!r}")


@dataclass(frozen=True)
class Recipe:
    """The settings of all stages.

    Attributes:
        vocabulary: Settings of the vocabulary.
        concepts: Settings of the concepts.
        generate: Settings of the images.
        extract: Settings of the features.
        refine: Settings of the choice of pairs. None keeps all pairs.
        assign: Features of another model, with which ``refine`` assigns captions to images. None
            for those of ``extract``.
        generate_batch: Images generated per batch.
        extract_batch: Images encoded per batch.
        assign_batch: Images encoded per batch for ``assign``.
        refine_chunk: Images, or captions, matched at a time.
        offload: For GPUs with little memory, see
            :class:`~pcm_plugin.synthesis.generate.text2image.ImageGenerator`.
        model: Settings of the model in the training config.
    """

    vocabulary: VocabularySettings
    concepts: ConceptSettings
    generate: GenerateSettings
    extract: ExtractSettings
    refine: RefineSettings | None = None
    assign: ExtractSettings | None = None
    generate_batch: int = 8
    extract_batch: int = 32
    assign_batch: int = 32
    refine_chunk: int = 8192
    offload: str | None = None
    model: dict[str, Any] = field(default_factory=dict)

    def corpus_record(self) -> dict[str, Any]:
        """Return the settings of vocabulary and concepts as JSON; files are named by content."""
        record = {
            f"{part}.{key}": value
            for part in ("vocabulary", "concepts")
            for key, value in getattr(self, part).__dict__.items()
            if key != "max_unknown_captions"  # a check, on which no output depends
        }
        for key in ("vocabulary.file", "concepts.stop_list", "concepts.words"):
            if record[key] is not None:
                record[key] = f"sha256 {sha256(Path(record[key]))[:16]}"
        clip = self.extract.as_record()
        return record | {key: clip[key] for key in ("model", "pretrained")}


def load_recipe(name: str, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        name: Name of a file in ``configs/recipes``, such as ``'sd15_vitb32'``, or the path of a
            .py, .yaml or .json file.
        overrides: Settings that replace those of the file, such as ``{'generate.steps': 30}``.

    Raises:
        MissingFileError: If the recipe does not exist.
        UserError: If a setting is unknown or invalid.
    """
    path = Path(name)
    if not path.suffix:
        path = RECIPES / f"{name}.py"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in RECIPES.glob("*.py")))
        raise MissingFileError(
            f"no recipe {name}: pass a file, or the name of one in {RECIPES} ({there or 'none'})"
        )
    # A part that is None is omitted, so that overrides can add it.
    parts = {k: v for k, v in Config.fromfile(path).to_dict().items() if v is not None}
    cfg = Config(parts)
    try:
        cfg.merge_from_dict(overrides or {})
    except TypeError as error:
        raise UserError(f"recipe {path}: {error}") from None
    content = {key: value for key, value in cfg.to_dict().items() if key[0] != "_"}
    known = ("vocabulary", "concepts", "generate", "extract", "refine", "assign", "model")
    wrong = sorted(content.keys() - set(known))
    missing = sorted({"generate", "extract"} - content.keys())
    if wrong or missing:
        raise UserError(f"recipe {path}: unknown parts {wrong}, missing parts {missing}")
    generate, extract = dict(content["generate"]), dict(content["extract"])
    refine = content.get("refine") and dict(content["refine"])
    assign = content.get("assign") and {"patches": False, **content["assign"]}
    if assign and not refine:
        raise UserError(f"recipe {path}: assign has no effect without refine: set refine.method")
    offload = generate.pop("offload", None)
    # The data do not depend on batch sizes, which are not among the settings of the stages.
    for part, source in (("extract", extract), ("assign", assign or {})):
        try:
            refuse_missing_scores(source.get("clip_score_source", "auto"))
        except UserError as error:
            raise UserError(f"recipe {path}: {part}: {error}") from None
    sizes: dict[str, int] = {}
    for part, key, settings in (
        ("generate", "batch_size", generate),
        ("extract", "batch_size", extract),
        ("assign", "batch_size", assign or {}),
        ("refine", "chunk", refine or {}),
    ):
        if key in settings:
            value = settings.pop(key)
            if not isinstance(value, int) or value < 1:
                raise UserError(
                    f"recipe {path}: {part}.{key} must be an integer of at least 1, got {value!r}"
                )
            sizes[f"{part}_{key.removesuffix('_size')}"] = value
    return Recipe(
        _build(VocabularySettings, content.get("vocabulary") or {}, path, "vocabulary"),
        _build(ConceptSettings, content.get("concepts") or {}, path, "concepts"),
        _build(GenerateSettings, generate, path, "generate"),
        _build(ExtractSettings, extract, path, "extract"),
        None if refine is None else _build(RefineSettings, refine, path, "refine"),
        None if assign is None else _build(ExtractSettings, assign, path, "assign"),
        offload=offload,
        model=content.get("model") or {},
        **sizes,
    )


def _check_file(name: str, path: str | None) -> None:
    if path is not None and not Path(path).is_file():
        raise MissingFileError(f"{name}: no file {path}")


def _build(kind: Any, settings: dict[str, Any], path: Path, part: str) -> Any:
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
