"""Recipes: all settings of a data set in one small file of Python or YAML."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mmengine.config import Config

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import sha256
from pcm_plugin.formats.vocabulary_coverage import MAX_UNKNOWN_CAPTIONS
from pcm_plugin.synthesis.concepts.embedding import TEMPLATES
from pcm_plugin.synthesis.extract.extract_features import ExtractSettings
from pcm_plugin.synthesis.generate.settings import GenerateSettings
from pcm_plugin.synthesis.refine.settings import RefineSettings

# In the repository, wherever its tools are called from.
RECIPES = Path(__file__).parents[3] / "configs" / "recipes"


@dataclass(frozen=True)
class VocabularySettings:
    """The captioner's words.

    Attributes:
        min_count: How often a word must occur in the captions. Defaults to 5.
        unk: Whether to append the word ``UNK``, which then stands for rare words, as in the
            released lists. Defaults to False: captions lose their rare words.
        file: A ``vocabulary.txt`` to take as it is, such as a released one.
        max_unknown_captions: Largest accepted share of captions without a single word of the
            vocabulary. Defaults to 0.05.

    Raises:
        MissingFileError: If there is no such file.
    """

    min_count: int = 5
    unk: bool = False
    file: str | None = None
    max_unknown_captions: float = MAX_UNKNOWN_CAPTIONS

    def __post_init__(self) -> None:
        _check_file("vocabulary.file", self.file)


@dataclass(frozen=True)
class ConceptSettings:
    """The concepts to look for in images: frequent nouns, or words of one's own.

    Attributes:
        min_count: How often a noun must occur in the captions. Defaults to 5.
        max_nouns: Keep only the most frequent nouns. Defaults to 500.
        phrases: Whether pairs of nouns become concepts too. Defaults to False.
        stop_list: A file of nouns to leave out, a word a line. Defaults to our list.
        words: A file of the concepts themselves, a word a line; captions that are not English need
            one.
        templates: Prompts over which embeddings are averaged, or the name of a set of them; see
            :func:`~pcm_plugin.synthesis.concepts.embedding.resolve_templates`.

    Raises:
        MissingFileError: If there is no such file.
        UserError: If ``templates`` is one text.
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
            raise UserError(f"templates={self.templates!r} is one text: give a list of them")


@dataclass(frozen=True)
class Recipe:
    """The settings of all stages.

    Attributes:
        vocabulary: The captioner's words.
        concepts: What it looks for in images.
        generate: Images.
        extract: Features.
        refine: Choice of pairs, None to take all as they are.
        assign: Features of another model, by which ``refine`` assigns captions to images. None for
            those of ``extract``.
        generate_batch: Images made at a time.
        extract_batch: Images encoded at a time.
        assign_batch: The same for ``assign``.
        refine_chunk: Images, or captions, matched at a time.
        offload: For GPUs that are too small, see
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
        """What vocabulary and concepts depend on beside the captions, as JSON; files by content."""
        record = {
            f"{part}.{key}": value
            for part in ("vocabulary", "concepts")
            for key, value in getattr(self, part).__dict__.items()
            if key != "max_unknown_captions"  # a check, on which no output depends
        }
        for key in ("vocabulary.file", "concepts.stop_list", "concepts.words"):
            if record[key] is not None:
                record[key] = f"sha256 {sha256(Path(record[key]))[:16]}"
        made_with = self.extract.as_record()
        return record | {key: made_with[key] for key in ("model", "pretrained")}


def load_recipe(name: str, overrides: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        name: One of ``configs/recipes``, such as ``'sd15_vitb32'``, or a file (.py, .yaml, .json).
        overrides: Settings that replace the file's, such as ``{'generate.steps': 30}``.

    Raises:
        MissingFileError: If there is no such recipe; says which there are.
        UserError: If it has a setting that does not exist, or one out of range.
    """
    path = Path(name)
    if not path.suffix:
        path = RECIPES / f"{name}.py"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in RECIPES.glob("*.py")))
        raise MissingFileError(f"no recipe {name}: give a file, or one of {there or 'none here'}")
    # A part that is None is not there, so that a change may bring it.
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
    # How much at a time is none of the settings that the data depend on.
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
                raise UserError(f"recipe {path}: {part}.{key}={value!r}: give at least 1")
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
        raise UserError(f"recipe {path}: {part} has no {', '.join(wrong)}, only {sorted(known)}")
    try:
        return kind(**settings)
    except (TypeError, ValueError) as error:
        raise UserError(f"recipe {path}: {part}: {error}") from None
