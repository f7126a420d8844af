"""Recipes: all settings of a data set in one small file of Python or YAML."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mmengine.config import Config

from pcm_plugin.synthesis.concepts import TEMPLATES
from pcm_plugin.synthesis.extract import ExtractSettings
from pcm_plugin.synthesis.refine import RefineSettings
from pcm_plugin.synthesis.settings import GenerateSettings

# In the repository, wherever its tools are called from.
RECIPES = Path(__file__).parents[2] / "configs" / "recipes"


@dataclass(frozen=True)
class CorpusSettings:
    """How vocabulary and concepts are taken from the captions.

    Attributes:
        min_count: How often a word must occur to be in the vocabulary. Defaults to 5.
        min_noun_count: How often a noun must occur to be a concept. Defaults to 5.
        max_nouns: Keep only the most frequent nouns. Defaults to 500.
        phrases: Whether pairs of nouns become concepts too. Defaults to False.
        templates: Prompts over which the concepts' embeddings are averaged.
    """

    min_count: int = 5
    min_noun_count: int = 5
    max_nouns: int = 500
    phrases: bool = False
    templates: tuple[str, ...] = TEMPLATES


@dataclass(frozen=True)
class Recipe:
    """The settings of all stages.

    Attributes:
        corpus: Vocabulary and concepts.
        generate: Images.
        extract: Features.
        refine: Choice of pairs, None to take all as they are.
        generate_batch: Images made at a time.
        extract_batch: Images encoded at a time.
        model: What ``configs/pcm_custom.py`` takes over into its model.
    """

    corpus: CorpusSettings
    generate: GenerateSettings
    extract: ExtractSettings
    refine: RefineSettings | None = None
    generate_batch: int = 8
    extract_batch: int = 32
    model: dict[str, Any] = field(default_factory=dict)


def load_recipe(name: str, changes: dict[str, Any] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        name: One of ``configs/recipes``, such as ``'sd15_vitb32'``, or a file (.py, .yaml, .json).
        changes: Settings that replace the file's, such as ``{'generate.steps': 30}``.

    Raises:
        FileNotFoundError: If there is no such recipe; says which there are.
        ValueError: If it has a setting that does not exist, or one out of range.
    """
    path = Path(name)
    if not path.suffix:
        path = RECIPES / f"{name}.py"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in RECIPES.glob("*.py")))
        raise FileNotFoundError(f"no recipe {name}: give a file, or one of {there or 'none here'}")
    # A part that is None is not there, so that a change may bring it.
    parts = {k: v for k, v in Config.fromfile(path).to_dict().items() if v is not None}
    cfg = Config(parts)
    try:
        cfg.merge_from_dict(changes or {})
    except TypeError as error:
        raise ValueError(f"recipe {path}: {error}") from None
    content = {key: value for key, value in cfg.to_dict().items() if key[0] != "_"}
    known = ("vocabulary", "concepts", "generate", "extract", "refine", "model")
    wrong = sorted(content.keys() - set(known))
    missing = sorted({"generate", "extract"} - content.keys())
    if wrong or missing:
        raise ValueError(f"recipe {path}: unknown parts {wrong}, missing parts {missing}")
    vocabulary, concepts = (dict(content.get(part) or {}) for part in ("vocabulary", "concepts"))
    if "min_count" in concepts:
        concepts["min_noun_count"] = concepts.pop("min_count")
    if "templates" in concepts:
        if isinstance(concepts["templates"], str):
            raise ValueError(f"recipe {path}: concepts.templates is one text: give a list of them")
        concepts["templates"] = tuple(concepts["templates"])
    generate, extract = dict(content["generate"]), dict(content["extract"])
    batches = {
        f"{stage}_batch": settings.pop("batch_size")
        for stage, settings in (("generate", generate), ("extract", extract))
        if "batch_size" in settings
    }
    for key, value in batches.items():
        if not isinstance(value, int) or value < 1:
            stage = key.removesuffix("_batch")
            raise ValueError(f"recipe {path}: {stage}.batch_size={value!r}: give at least 1")
    refine = content.get("refine")
    return Recipe(
        _build(CorpusSettings, {**vocabulary, **concepts}, path, "vocabulary or concepts"),
        _build(GenerateSettings, generate, path, "generate"),
        _build(ExtractSettings, extract, path, "extract"),
        None if refine is None else _build(RefineSettings, refine, path, "refine"),
        model=content.get("model") or {},
        **batches,
    )


def _build(kind: Any, settings: dict[str, Any], path: Path, part: str) -> Any:
    known = {f.name for f in fields(kind)}
    wrong = sorted(settings.keys() - known)
    if wrong:
        raise ValueError(f"recipe {path}: {part} has no {', '.join(wrong)}, only {sorted(known)}")
    try:
        return kind(**settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"recipe {path}: {part}: {error}") from None
