"""Recipes: all settings of a data set in one file of Python, YAML or JSON."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import sha256
from pcm_plugin.packaged_files import CONFIGS
from pcm_plugin.synthesis.concepts.tagger import tagger_identity
from pcm_plugin.synthesis.extract.annotation_scores import refuse_missing_scores
from pcm_plugin.synthesis.extract.encode_captions import SHARD_SIZE
from pcm_plugin.synthesis.extract.settings import ExtractSettings
from pcm_plugin.synthesis.generate.settings import GenerateSettings
from pcm_plugin.synthesis.pipeline.corpus_settings import (
    ConceptSettings,
    LanguageModelSettings,
    PhotoSettings,
    TrainingSettings,
    ValidationSettings,
    VocabularySettings,
)
from pcm_plugin.synthesis.pipeline.recipe_parts import build_part, refinement_with_photos
from pcm_plugin.synthesis.pipeline.stages import STAGES, TEXT_STAGES
from pcm_plugin.synthesis.pipeline.text_captioners import TEXT_CAPTIONERS
from pcm_plugin.synthesis.refine.settings import RefineSettings

RECIPES = CONFIGS / "recipes"

_PARTS = (
    *("vocabulary", "concepts", "generate", "extract", "refine", "assign", "model"),
    *("language_model", "validation", "training", "photos"),
)
_IMAGE_PARTS = ("generate", "refine", "assign", "validation", "training", "photos")
"""Parts that have no effect without images."""

# A check and the language of the scores, on which no output depends, and settings that are recorded
# only if they are used.
_UNRECORDED = ("max_unknown_captions", "language", "kind", "size", "tagger")


@dataclass(frozen=True)
class Recipe:
    """The settings of all stages.

    A *text recipe* has ``generate=None``: it encodes captions alone, for captioners that need no
    images in training.

    Attributes:
        vocabulary: Settings of the vocabulary.
        concepts: Settings of the concepts.
        extract: Settings of the features.
        generate: Settings of the images. None for a text recipe.
        refine: Settings of the choice of pairs. None keeps all pairs.
        assign: Features of another model, with which ``refine`` assigns captions to images. None
            for those of ``extract``.
        generate_batch: Images generated per batch.
        extract_batch: Images encoded per batch.
        assign_batch: Images encoded per batch for ``assign``.
        refine_chunk: Images, or captions, matched at a time.
        offload: For GPUs with little memory, see
            :class:`~pcm_plugin.synthesis.generate.text2image.ImageGenerator`.
        model: Settings of the model in the training config. For a text recipe, those of each
            captioner by its name in :data:`.TEXT_CAPTIONERS`.
        language_model: For a text recipe, settings of a small GPT-2 for the prefix captioner. None
            for a pretrained one.
        validation: Settings of the captions that are held out for validation, unless there are real
            images for it. None for no such captions, as in a text recipe.
        training: Settings of the training of PCM-Net.
        photos: Photos without captions, to which ``refine`` assigns captions. None for none.
    """

    vocabulary: VocabularySettings
    concepts: ConceptSettings
    extract: ExtractSettings
    generate: GenerateSettings | None = None
    refine: RefineSettings | None = None
    assign: ExtractSettings | None = None
    generate_batch: int = 8
    extract_batch: int = 32
    assign_batch: int = 32
    refine_chunk: int = 8192
    offload: str | None = None
    model: dict[str, Any] = field(default_factory=dict)
    language_model: LanguageModelSettings | None = None
    validation: ValidationSettings | None = None
    training: TrainingSettings = field(default_factory=TrainingSettings)
    photos: PhotoSettings | None = None

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of this recipe, in order."""
        if self.generate is None:
            return TEXT_STAGES
        return tuple(name for name in STAGES if name != "photos" or self.photos is not None)

    @property
    def photos_alone(self) -> bool:
        """Whether captions are assigned to photos alone, so that few images are generated."""
        return self.photos is not None and self.photos.images == "photos"

    @property
    def shard_size(self) -> int:
        """Real images per shard."""
        return SHARD_SIZE if self.generate is None else self.generate.shard_size

    @property
    def top_concepts(self) -> tuple[str, int]:
        """Name and value of the setting of how many concepts the model names per image."""
        if self.generate is None:
            key, default, part = "model.prefix.entity_prompt", 3, self.model.get("prefix", {})
            settings = part.get("entity_prompt") or {}
        else:
            key, default, settings = "model.neck", 5, self.model.get("neck", {})
        return f"{key}.top_concepts", settings.get("top_concepts", default)

    def corpus_record(self) -> dict[str, Any]:
        """Return the settings of vocabulary and concepts as JSON; files are named by content."""
        record = {
            f"{part}.{key}": value
            for part in ("vocabulary", "concepts")
            for key, value in getattr(self, part).__dict__.items()
            if key not in _UNRECORDED
        }
        # Not in the records of data sets that were made before these settings existed.
        if self.vocabulary.kind == "subword":
            record |= {"vocabulary.kind": "subword", "vocabulary.size": self.vocabulary.size}
        if self.concepts.tagger is not None:
            record["concepts.tagger"] = tagger_identity(self.concepts.tagger)
        for key in ("vocabulary.file", "concepts.stop_list", "concepts.words"):
            if record[key] is not None:
                record[key] = f"sha256 {sha256(Path(record[key]))[:16]}"
        if self.language_model is not None:
            for key, value in self.language_model.__dict__.items():
                record[f"language_model.{key}"] = value
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
    parts = Config.fromfile(path).to_dict()
    # A part that is None is omitted, so that overrides can add it.
    cfg = Config({key: value for key, value in parts.items() if value is not None})
    try:
        cfg.merge_from_dict(overrides or {})
    except TypeError as error:
        raise UserError(f"recipe {path}: {error}") from None
    content = {key: value for key, value in cfg.to_dict().items() if key[0] != "_"}
    for part, value in content.items():
        if value is not None and not isinstance(value, dict):
            raise UserError(f"recipe {path}: {part} must be a dict of settings, got {value!r}")
    # `generate` must be set to None explicitly: a file without it may just be incomplete.
    is_text = any("generate" in c and c["generate"] is None for c in (parts, content))
    wrong = sorted(content.keys() - set(_PARTS))
    required = ("extract",) if is_text else ("extract", "generate")
    missing = [part for part in required if content.get(part) is None]
    if wrong or missing:
        raise UserError(
            f"recipe {path}: unknown parts {wrong}, missing parts {missing}"
            + (" (generate=None encodes captions alone)" if "generate" in missing else "")
        )
    (_check_text_recipe if is_text else _check_image_recipe)(content, path)
    generate, extract = dict(content.get("generate") or {}), dict(content["extract"])
    if is_text:
        extract["patches"] = False
    refine = content.get("refine") and dict(content["refine"])
    photos = content.get("photos")
    if photos is not None:
        photos = build_part(PhotoSettings, photos, path, "photos")
        refine = refinement_with_photos(refine, path)
    # With photos alone, a caption has no image of its own.
    count = 1 if photos and photos.images == "photos" else generate.get("images_per_caption", 1)
    if refine and refine.get("method", "sync") == "sync" and isinstance(count, int) and count > 1:
        # The copies of a caption count as one: these are at least two different captions, the
        # number of SynC.
        refine.setdefault("num_captions", 2 * count)
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
    small = content.get("language_model")
    # An image recipe without this part has the defaults; None must be set explicitly.
    held_out = content.get("validation", None if is_text else parts.get("validation", {}))
    return Recipe(
        build_part(VocabularySettings, content.get("vocabulary") or {}, path, "vocabulary"),
        build_part(ConceptSettings, content.get("concepts") or {}, path, "concepts"),
        build_part(ExtractSettings, extract, path, "extract"),
        None if is_text else build_part(GenerateSettings, generate, path, "generate"),
        None if refine is None else build_part(RefineSettings, refine, path, "refine"),
        None if assign is None else build_part(ExtractSettings, assign, path, "assign"),
        offload=offload,
        model=content.get("model") or {},
        language_model=None
        if small is None
        else build_part(LanguageModelSettings, small, path, "language_model"),
        validation=None
        if held_out is None
        else build_part(ValidationSettings, held_out, path, "validation"),
        training=build_part(TrainingSettings, content.get("training") or {}, path, "training"),
        photos=photos,
        **sizes,
    )


def _check_text_recipe(content: dict[str, Any], path: Path) -> None:
    """Refuse settings that have no effect in a recipe that encodes captions alone."""
    parts = {part: content.get(part) for part in _IMAGE_PARTS}
    settings = [
        name
        for part, values in parts.items()
        if values is not None
        for name in ([f"{part}.{key}" for key in values] or [part])
    ]
    unused = {"pool": 1, "patch_mode": "plain", "patches": False, "clip_score_source": "auto"}
    settings += [
        f"extract.{key}"
        for key, default in unused.items()
        if content["extract"].get(key, default) != default
    ]
    if settings:
        raise UserError(
            f"recipe {path} encodes captions alone (generate=None), so {', '.join(settings)} "
            f"{'has' if len(settings) == 1 else 'have'} no effect: leave out these settings, or "
            "pass a recipe that generates images, such as sd15_vitb32"
        )
    if wrong := sorted((content.get("model") or {}).keys() - set(TEXT_CAPTIONERS)):
        raise UserError(
            f"recipe {path} encodes captions alone (generate=None), so `model` must hold the "
            f"settings of {', '.join(f'model.{name}' for name in TEXT_CAPTIONERS)}, got "
            f"{', '.join(f'model.{key}' for key in wrong)}"
        )


def _check_image_recipe(content: dict[str, Any], path: Path) -> None:
    if content.get("language_model") is not None:
        raise UserError(
            f"recipe {path} generates images, so language_model has no effect: leave it out, or "
            "pass a recipe for captions alone, such as text_vitb32"
        )
