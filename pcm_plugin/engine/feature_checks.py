"""Check that the input files of a config match each other, before anything is built."""

from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope

from pcm_plugin.engine.config_modules import LOOPS, file_arguments, iter_modules, list_input_files
from pcm_plugin.errors import UserError
from pcm_plugin.formats.concept_set import ConceptSet, load_concepts
from pcm_plugin.formats.feature_store import FeatureStore, is_caption_store
from pcm_plugin.formats.object_labels import load_object_labels
from pcm_plugin.formats.required_file import FileKind, RequiredFile
from pcm_plugin.models.backbones.open_clip_backbone import OpenCLIPBackbone
from pcm_plugin.models.backbones.weights_file import weights_identity
from pcm_plugin.models.functional.patch_attention import check_patch_mode


def check_features(cfg: Config, loops: Iterable[str]) -> None:
    """Check that feature stores are complete and match the concepts, the CLIPs and the neck.

    Features of different CLIPs may have the same shape: a captioner would train on a mixture
    without an error. Object labels must be concepts, and either all loops have them or none:
    otherwise the captioner would be tested on other inputs than it was trained on.

    Args:
        cfg: The final config. Its input files exist.
        loops: Loops that will run: ``train``, ``val`` and ``test``.

    Raises:
        MissingFileError: If a folder holds no feature store.
        UserError: If a file has another format, files are from different CLIPs, patches of a store
            are in the joint space and the neck expects others (or vice versa), patches were
            extracted with different values of ``patch_mode``, an object label is not a concept, or
            only some loops have object labels.
    """
    loops = list(loops)
    files = list_input_files(cfg, loops)
    features = {f.path: FeatureStore(f.path) for f in files if f.kind is FileKind.FEATURE_STORE}
    concepts = {f.path: load_concepts(f.path) for f in files if _is_concept_set(f)}
    datasets = [f.path for f in files if f.key.endswith("_dataloader.dataset.store")]
    _check_patches(cfg, {path: features[path] for path in datasets})
    _check_patch_modes(cfg, {path: features[path] for path in datasets})
    _check_object_labels(cfg, files, concepts)
    clips = _clips(cfg, features, concepts)
    if len(set(clips.values())) > 1:
        lines = ["Features and concepts must come from one CLIP, but there are several:"]
        lines += [f"  {path}: {clip}" for path, clip in clips.items()]
        raise UserError("\n".join([*lines, "Create those that differ again, with one --model."]))


def find_clips(cfg: Config, loops: Iterable[str]) -> dict[str, str]:
    """Return the names of the CLIPs of feature stores, concepts and the model.

    Args:
        cfg: The final config. Its input files exist.
        loops: Loops whose feature stores are included: ``train``, ``val`` and ``test``.

    Returns:
        Name and weights of the CLIP by file or key of the config. A local CLIP is named by its
        content.
    """
    files = list_input_files(cfg, loops)
    features = {f.path: FeatureStore(f.path) for f in files if f.kind is FileKind.FEATURE_STORE}
    concepts = {f.path: load_concepts(f.path) for f in files if _is_concept_set(f)}
    return _clips(cfg, features, concepts)


def _clips(
    cfg: Config, features: Mapping[str, FeatureStore], concepts: Mapping[str, ConceptSet]
) -> dict[str, str]:
    clips = {
        path: clip_name(store.settings.get("model"), store.settings.get("pretrained"))
        for path, store in features.items()
    }
    clips |= {
        path: clip_name(file.model, file.pretrained)
        for path, file in concepts.items()
        # A released concept list may not name its CLIP.
        if file.model is not None
    }
    return clips | _clips_of_model(cfg)


def check_caption_stores(cfg: Config, loops: Iterable[str]) -> None:
    """Check that only training on text features reads a store of captions alone.

    This comes before the check of missing files, since such a store also lacks the CLIP head that a
    captioner of image features needs.

    Args:
        cfg: The final config.
        loops: Loops that will run: ``train``, ``val`` and ``test``.

    Raises:
        UserError: If another dataset of the loops reads such a store.
    """
    for loop in loops:
        dataset = (cfg.get(f"{loop}_dataloader") or {}).get("dataset") or {}
        store, features = dataset.get("store"), dataset.get("features", "patch")
        is_text_only = loop == "train" and features == "text"
        if isinstance(store, str) and not is_text_only and is_caption_store(store):
            FeatureStore(store).require_images(f"{loop}_dataloader.dataset with {features=}")


def _is_concept_set(file: RequiredFile) -> bool:
    return file.kind in (FileKind.CONCEPT_SET, FileKind.ENTITY_SET)


def _clips_of_model(cfg: Config) -> dict[str, str]:
    """Return the name of each CLIP in the model, by its key."""
    clips = {}
    for key, settings in _backbones(cfg).items():
        name = str(settings.get("model_name"))
        # A local folder may be a copy without all files of the one that made the features.
        if not name.startswith("local-dir:"):
            pretrained = settings.get("pretrained")
            weights = None if pretrained is None else weights_identity(pretrained)
            clips[key] = clip_name(name, weights)
    return clips


def _backbones(cfg: Config) -> dict[str, Mapping[str, Any]]:
    """Return the settings of each CLIP in the model, by its key."""
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope")):
        return {
            module.key: module.settings
            for module in iter_modules(cfg.get("model") or {})
            if issubclass(module.cls, OpenCLIPBackbone)
        }


def _check_patches(cfg: Config, stores: dict[str, FeatureStore]) -> None:
    neck = cfg.get("model", {}).get("neck") or {}
    if "patch_dim" not in neck or neck.get("selection") == "none":
        return
    expected = neck.get("patches_in_joint_space", False)
    for path, store in stores.items():
        joint = store.patches_in_joint_space
        if joint != expected:
            raise UserError(
                f"`model.neck.patches_in_joint_space` must be {joint}, got {expected}: patches of "
                f"{path} are {'' if joint else 'not '}in CLIP's joint space; change the setting or "
                "use features of another CLIP"
            )


def _check_patch_modes(cfg: Config, stores: dict[str, FeatureStore]) -> None:
    """Check that the patches of all stores, and of the CLIPs of inference, have one mode."""
    if "patch_dim" not in (cfg.get("model", {}).get("neck") or {}):
        return
    modes = {
        path: store.settings.get("patch_mode", "plain")
        for path, store in stores.items()
        if store.settings.get("patches", True)
    }
    if modes and cfg.get("clip"):
        modes["clip"] = cfg.clip.get("patch_mode", "plain")
    if modes:
        for key, settings in _backbones(cfg).items():
            modes[key] = settings.get("patch_mode", "plain")
    for mode in modes.values():
        check_patch_mode(mode)
    if len(set(modes.values())) > 1:
        lines = ["Patch features must have one patch_mode, but there are several:"]
        lines += [f"  {name}: {mode}" for name, mode in modes.items()]
        lines += ["Set clip.patch_mode, or extract those that differ again, with one --patch-mode."]
        raise UserError("\n".join(lines))


def _check_object_labels(
    cfg: Config, files: list[RequiredFile], concepts: dict[str, ConceptSet]
) -> None:
    # All loops, not only those that run: a captioner that is tested was trained.
    keys = {argument.key for argument in file_arguments(cfg) if argument.path is not None}
    read = [loop for loop in LOOPS if f"{loop}_dataloader.dataset.store" in keys]
    having = [loop for loop in read if f"{loop}_dataloader.dataset.object_labels" in keys]
    if having and having != read:
        without = [loop for loop in read if loop not in having]
        raise UserError(
            "`object_labels` must be set for all loops or for none: the dataset of "
            f"{', '.join(having)} has them, that of {', '.join(without)} does not"
        )
    for file in files:
        if file.kind is not FileKind.OBJECT_LABELS:
            continue
        labels = {label for image in load_object_labels(file.path).values() for label in image}
        for path, concept_set in concepts.items():
            unknown = sorted(labels.difference(concept_set.words))
            if unknown:
                raise UserError(
                    f"{file.path} has {len(unknown)} object labels that are not concepts of "
                    f"{path}, such as {unknown[:3]}: map them to its words, or build the concepts "
                    "with them (`pcm build-concepts`)"
                )


def clip_name(model: str | None, pretrained: str | None = None) -> str:
    """Return name and weights of a CLIP."""
    return f"{model}, pretrained={pretrained}" if pretrained else str(model)
