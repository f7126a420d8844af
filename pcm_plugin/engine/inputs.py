"""Say what is missing, or does not belong together, before anything is built."""

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.atomic_io import fingerprint, folder_sha256, sha256
from pcm_plugin.formats.concept_set import ConceptSet, load_concepts
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.object_labels import load_object_labels
from pcm_plugin.models.backbones.weights_file import weights_identity

TEST_KEYS = ("model", "test_dataloader", "test_evaluator", "test_cfg")
"""The parts of a config on which scores depend."""


def check_inputs(cfg: Config, loops: Iterable[str]) -> None:
    """Check every file that the config lists under ``required_files``.

    Each entry of that list is ``dict(key=..., command=...)``: ``key`` is where the final config
    holds the path (so that ``--cfg-options`` and leaf configs are honoured), such as
    ``train_dataloader.dataset.store``, and ``command`` the line that makes the file, in which
    ``{path}`` stands for the path, ``{folder}`` for the folder that it is in, and ``{name}`` or
    ``{name[key]}`` for what the config says (see :func:`build_command`).

    A path that is None, or inside of a part that is None, is not wanted and not checked, nor is one
    that the config has no place for if its entry says ``optional=True``.

    Args:
        cfg: The final config.
        loops: Which of ``train``, ``val`` and ``test`` will run: keys that start with the name of
            another are not checked.

    Raises:
        MissingFileError: If a file is missing; names every one and the commands that make them.
        UserError: If an entry's ``key`` is not in the config.
    """
    makers: dict[str, list[str]] = {}
    count = 0
    for entry in _prerequisites(cfg, loops):
        for path in _paths(cfg, entry["key"]):
            if not Path(path).exists():
                makers.setdefault(build_command(cfg, entry, path), []).append(
                    f"{path}  ({entry['key']})"
                )
                count += 1
    if makers:
        files = "1 file that does" if count == 1 else f"{count} files that do"
        lines = [f"{cfg.filename or 'the config'} needs {files} not exist."]
        for command, paths in makers.items():
            lines += [f"  missing: {path}" for path in paths]
            lines += [f"  made by: {command}", ""]
        raise MissingFileError("\n".join(lines).rstrip())


def build_command(cfg: Config, entry: Mapping[str, Any], path: str) -> str:
    """The command that makes a file.

    A config may read files of several data sets, such as weights of one and images of another. It
    then lists the others under ``extra_datasets``, each a dict with its folder as ``root``: for a file
    in there what that dict says (``captions``, say) takes the place of what the config says.

    Args:
        cfg: The final config.
        entry: One of its ``required_files``. Its keys other than ``key`` and ``command`` are
            defaults for what the command mentions.
        path: The file.
    """
    place = Path(path).absolute()
    near = [
        d for d in cfg.get("extra_datasets", []) if place.is_relative_to(Path(d["root"]).absolute())
    ]
    values = {**cfg.to_dict(), **(near[0].to_dict() if near else {})}
    values |= {"path": path, "folder": str(Path(path).parent)}
    # What the entry itself brings is a piece of a command already.
    settings = {
        **entry,
        **{key: value if key in entry else _quoted(value) for key, value in values.items()},
    }
    # A model that brings its weights, as a local folder does, takes no other ones.
    return entry["command"].format(**settings).replace(" --pretrained None", "")


def _quoted(value: Any) -> Any:
    """Quote a setting for the shell, and every setting inside it."""
    if isinstance(value, Mapping):
        return {key: _quoted(part) for key, part in value.items()}
    return shlex.quote(value) if isinstance(value, str) else value


def drop_clip_head(cfg: Config) -> None:
    """Do without the file of CLIP's image head: weights bring it, and it only begins a training.

    Args:
        cfg: The config, changed.
    """
    neck = cfg.get("model", {}).get("neck") or {}
    if "clip_head" in neck:
        neck["clip_head"] = None


def check_features(cfg: Config, loops: Iterable[str]) -> None:
    """Check that feature stores are whole and go with concepts, memory, CLIPs, neck and objects.

    CLIPs of one size have features of one shape, so that a mixture would train, and learn little.
    Objects of a file must be among the concepts, or the training would end at the first other, and
    each loop must have them or none, or a captioner would meet others than it was trained on.

    Args:
        cfg: The final config, its files there.
        loops: Which of ``train``, ``val`` and ``test`` will run.

    Raises:
        MissingFileError: If a folder holds no store.
        UserError: If a file is not what it should be, two name different models, patches are in
            the joint space and the neck has it otherwise, an object is no concept, or some loops
            have objects and others none.
    """
    loops = list(loops)
    keys = [f"{loop}_dataloader.dataset.store" for loop in loops]
    stores = {p: FeatureStore(p) for key in keys for p in _paths(cfg, key, optional=True)}
    concepts = {
        path: load_concepts(path)
        for part in ("model.neck", "model.vision_encoder", "model.vision_backbone", "model")
        for path in _paths(cfg, f"{part}.concepts", optional=True)
    }
    _check_patches(cfg, stores)
    _check_objects(cfg, loops, concepts)
    memories = {p: FeatureStore(p) for p in _paths(cfg, "model.neck.memory", optional=True)}
    makers = {
        path: _clip_name(store.settings.get("model"), store.settings.get("pretrained"))
        for path, store in (stores | memories).items()
    }
    makers |= {
        path: _clip_name(file.model, file.pretrained)
        for path, file in concepts.items()
        # A released concept list may not say where it is from.
        if file.model is not None
    }
    for key in ("model.backbone", "model.vision_encoder.clip", "model.vision_backbone.clip"):
        for name in _paths(cfg, f"{key}.model_name", optional=True):
            given = _paths(cfg, f"{key}.pretrained", optional=True)
            # A folder may be a copy that has not all files of the one that features came from.
            if not name.startswith("local-dir:"):
                makers[key] = _clip_name(name, *map(weights_identity, given))
    if len(set(makers.values())) > 1:
        lines = ["Features and concepts must come from one CLIP, but here are several:"]
        lines += [f"  {path}: {maker}" for path, maker in makers.items()]
        raise UserError("\n".join([*lines, "Make those that differ again, with one --model."]))


def _check_patches(cfg: Config, stores: dict[str, FeatureStore]) -> None:
    neck = cfg.get("model", {}).get("neck") or {}
    if "patch_dim" not in neck or neck.get("mix") == "none":
        return
    joint = neck.get("patches_in_joint_space", False)
    for path, store in stores.items():
        if store.patches_in_joint_space != joint:
            raise UserError(
                f"patches of {path} are {'' if store.patches_in_joint_space else 'not '}in CLIP's joint "
                f"space, but model.neck.patches_in_joint_space={joint}: set it to {store.patches_in_joint_space}, "
                "or take features of another CLIP"
            )


def _check_objects(cfg: Config, loops: list[str], concepts: dict[str, ConceptSet]) -> None:
    # Those too that do not run now: a captioner that is tested was trained.
    every = ("train", "val", "test")
    read = {loop for loop in every if _paths(cfg, f"{loop}_dataloader.dataset.store", True)}
    given = {loop for loop in read if _paths(cfg, f"{loop}_dataloader.dataset.object_labels", True)}
    if given and given != read:
        raise UserError(
            f"{', '.join(sorted(given))} has object_labels= and {', '.join(sorted(read - given))} has "
            "none: give each loop a file of its images' objects, or none"
        )
    for loop in loops:
        for file in _paths(cfg, f"{loop}_dataloader.dataset.object_labels", optional=True):
            found = {label for own in load_object_labels(file).values() for label in own}
            for path, known in concepts.items():
                unknown = sorted(found.difference(known.words))
                if unknown:
                    raise UserError(
                        f"{file} has {len(unknown)} objects that are no concepts of {path}, such "
                        f"as {unknown[:3]}: map them to its words, or make it with them too "
                        "(tools/build_concepts.py)"
                    )


def hash_inputs(cfg: Config, loops: Iterable[str]) -> dict[str, str]:
    """Names, by content, of what a config reads: equal names, equal data, wherever it lies.

    Args:
        cfg: The final config, its files there.
        loops: Which of ``train``, ``val`` and ``test`` will run.

    Returns:
        By key of the config (see :func:`check_inputs`) the first 16 digits of a SHA-256.
    """
    wanted = (e for e in _prerequisites(cfg, loops) if e.get("in_fingerprint", True))
    keys = sorted(entry["key"] for entry in wanted)
    found = {key: [_identity(Path(path)) for path in _paths(cfg, key)] for key in keys}
    return {key: " ".join(names) for key, names in found.items() if names}


def hash_settings(cfg: Config, parts: Iterable[str]) -> str:
    """A short name for parts of a config: equal settings and only they share it.

    Args:
        cfg: The config.
        parts: Its keys, such as ``'model'``.
    """
    settings = {part: cfg.to_dict().get(part) for part in parts}
    return fingerprint(json.loads(json.dumps(settings, default=str)))


def _prerequisites(cfg: Config, loops: Iterable[str]) -> list[dict[str, str]]:
    skipped = tuple(f"{loop}_" for loop in {"train", "val", "test"} - set(loops))
    return [
        entry
        for entry in cfg.get("required_files", [])
        if not entry["key"].startswith(skipped)
        and (not entry.get("optional") or _paths(cfg, entry["key"], optional=True))
    ]


def _identity(path: Path) -> str:
    if not path.is_dir():
        return sha256(path)[:16]
    # A language model's folder has no manifest, a store has one.
    is_store = (path / "manifest.json").is_file()
    return FeatureStore(path).identity if is_store else folder_sha256(path)[:16]


def _clip_name(model: str | None, pretrained: str | None = None) -> str:
    return f"{model}, pretrained={pretrained}" if pretrained else str(model)


def _paths(cfg: Config, key: str, optional: bool = False) -> list[str]:
    value: Any = cfg
    for part in key.split("."):
        if value is None or (optional and part not in value):
            return []
        if part not in value:
            raise UserError(f"required_files name {key!r}, but the config has no {part!r} there")
        value = value[part]
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)
