"""Commands that create the input files of a config, for the message that names missing files."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from pcm_plugin.commands.processes import shell_command
from pcm_plugin.engine.config_modules import list_input_files
from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.required_file import FileKind, RequiredFile


class DataSource(NamedTuple):
    """Sources of the files of a data set.

    Attributes:
        root: Folder of the data set.
        captions: Caption file.
        pipeline: Diffusion pipeline that generates images.
        entities: Word list of the entities that prompts name.
        split: Split of the caption file for real images; ``''`` for a file without splits. None
            stands for the name of the loop.
        clip: The CLIP of the features, as options of a command.
        train_store: Feature store of the training.
        train_pairs: Pairs of the training; None for all of the store.
        temperature: Temperature of the softmax for refined features; None for the default.
        build_commands: Key of :data:`BUILD_COMMANDS`; None if nothing creates the files.
    """

    root: str
    captions: str
    pipeline: str
    entities: str
    split: str | None
    clip: dict[str, Any]
    train_store: str
    train_pairs: str | None
    temperature: float | None
    build_commands: str | None

    @classmethod
    def from_config(cls, cfg: Config, path: str) -> "DataSource":
        """Return the source of a file.

        Args:
            cfg: The final config. Its ``extra_datasets`` are other data sets, each a dict with
                ``root`` and ``captions``: their settings are used for files in their ``root``.
            path: The file.
        """
        place = Path(path).absolute()
        values = cfg.to_dict()
        for extra in cfg.get("extra_datasets", []):
            if place.is_relative_to(Path(extra["root"]).absolute()):
                values |= extra
                break
        neck = (cfg.get("model") or {}).get("neck") or {}
        return cls(
            root=values.get("root", "ROOT"),
            captions=values.get("captions", "CAPTIONS"),
            pipeline=values.get("pipeline", "PIPELINE"),
            entities=values.get("entities", "WORDS"),
            split=values.get("split"),
            clip=dict(cfg.get("clip") or {"model_name": "CLIP"}),
            train_store=_training_dataset(cfg).get("store") or "STORE",
            train_pairs=_training_dataset(cfg).get("pairs"),
            temperature=neck.get("text_memory_temperature"),
            build_commands=values.get("build_commands"),
        )

    def clip_options(self, patches: bool = True) -> list[str]:
        """Return the options that select the CLIP. One that brings its weights takes no others."""
        names = {"model": "model_name", "pretrained": "pretrained"}
        if patches:
            names |= {"pool": "pool", "patch-mode": "patch_mode"}
        options = [
            (f"--{k}", str(self.clip[name])) for k, name in names.items() if self.clip.get(name)
        ]
        return [word for option in options for word in option]


BuildCommand = Callable[[RequiredFile, DataSource], str | None]
"""Return the command that creates a file; None for a file that no command creates."""


def generate_from_captions(file: RequiredFile, source: DataSource) -> str | None:
    """Return the command for a data set of generated images, such as COCO's."""
    loop = _loop_of(file.key)
    if file.kind is FileKind.FEATURE_STORE and loop in ("val", "test"):
        return _extract_real_images(file.path, source, loop)
    match file.kind:
        case FileKind.FEATURE_STORE:
            return _generate_and_extract(file.path, source)
        case FileKind.CLIP_HEAD:  # `pcm extract` writes it into the store
            return _generate_and_extract(source.train_store, source)
        case FileKind.IMAGE_FOLDER:
            return _generate(source) if loop == "train" else "the authors of the data set"
        case FileKind.VOCABULARY:
            # As the released lists were made: counted over all splits, UNK for rare words.
            options = ("--split", "all", "--unk", "--out", file.path)
            return _pcm("build-vocabulary", source.captions, *options)
        case FileKind.CONCEPT_SET | FileKind.WORD_LIST:
            return _build_concepts(file.path, source, "--captions", source.captions)
        case FileKind.ENTITY_SET:
            return _build_concepts(file.path, source, source.entities)
    return _common_command(file, source)


def make_demo(file: RequiredFile, source: DataSource) -> str | None:
    """Return the command for the data sets of the toy world."""
    captions = f"{source.root}/captions_train.json"
    match file.kind:
        case FileKind.LANGUAGE_MODEL:
            return _pcm("build-language-model", captions, "--out", file.path)
        case FileKind.TOKENIZER:
            options = ("--kind", "bert", "--out", file.path)
            return _pcm("build-language-model", captions, *options)
    return _common_command(file, source) or _pcm("demo", "--recipe", "toy")


def make_dataset(file: RequiredFile, source: DataSource) -> str | None:
    """Return the command for a data set of the user's captions."""
    if file.kind in (FileKind.LANGUAGE_MODEL, FileKind.TOKENIZER):
        return None
    if file.kind is not FileKind.PAIR_SELECTION and (command := _common_command(file, source)):
        return command
    words = ["CAPTIONS", "--recipe", "RECIPE", "--out", source.root]
    if (loop := _loop_of(file.key)) in ("val", "test"):
        words += [f"--{loop}", "IMAGES", "CAPTIONS"]
    return _pcm("make-dataset", *words)


BUILD_COMMANDS: dict[str, BuildCommand] = {
    "generate_from_captions": generate_from_captions,
    "make_demo": make_demo,
    "make_dataset": make_dataset,
}
"""Values of ``build_commands`` in a config."""


def build_command(cfg: Config, file: RequiredFile) -> str | None:
    """Return the command that creates an input file of a config.

    Args:
        cfg: The final config. Its ``build_commands`` is a key of :data:`BUILD_COMMANDS`.
        file: The file.

    Returns:
        A shell command, or who provides the file; None if the config does not know.

    Raises:
        UserError: If ``build_commands`` is unknown.
    """
    source = DataSource.from_config(cfg, file.path)
    name = source.build_commands
    if name is None:
        return None
    if name not in BUILD_COMMANDS:
        raise UserError(f"`build_commands` must be one of {list(BUILD_COMMANDS)}, got {name!r}")
    return BUILD_COMMANDS[name](file, source)


def check_inputs(cfg: Config, loops: Iterable[str]) -> None:
    """Check that the input files of a config exist.

    A language model or tokenizer that no command creates may be a name on a model hub and is not
    checked.

    Args:
        cfg: The final config.
        loops: Loops that will run: ``train``, ``val`` and ``test``. The datasets and metrics of
            the others are not checked.

    Raises:
        MissingFileError: If a file does not exist. The message lists all of them with the commands
            that create them.
    """
    missing: dict[str | None, list[str]] = {}
    for file in list_input_files(cfg, loops):
        if Path(file.path).exists():
            continue
        command = build_command(cfg, file)
        if command is None and file.kind in (FileKind.LANGUAGE_MODEL, FileKind.TOKENIZER):
            continue
        missing.setdefault(command, []).append(f"{file.path}  ({file.key})")
    if not missing:
        return
    count = sum(map(len, missing.values()))
    files = "1 file that does" if count == 1 else f"{count} files that do"
    lines = [f"{cfg.filename or 'the config'} needs {files} not exist."]
    for command, paths in missing.items():
        lines += [f"  missing: {path}" for path in paths]
        lines += [f"  made by: {command}", ""] if command else [""]
    raise MissingFileError("\n".join(lines).rstrip())


def _common_command(file: RequiredFile, source: DataSource) -> str | None:
    """Return the command for files that all data sets create in the same way."""
    match file.kind:
        case FileKind.PAIR_SELECTION:
            return _pcm("refine", source.train_store, "--out", "FOLDER")
        case FileKind.REFINED_FEATURES:
            words = [source.train_store, "--method", "contrast"]
            if source.train_pairs is not None:
                words += ["--among", source.train_pairs]
            if source.temperature is not None:
                words += ["--temperature", str(source.temperature)]
            return _pcm("refine", *words, "--out", str(Path(file.path).parent))
        case FileKind.OBJECT_LABELS:
            return "an object detector of your choice"
        case FileKind.GROUPS:
            return "the authors of the data set (NoCaps: https://nocaps.org/download)"
    return None


def _generate(source: DataSource) -> str:
    # --unique: one image for captions of equal text, as in SynthImgCap.
    words = [source.captions, "--unique", "--pipeline", source.pipeline, "--dtype", "float16"]
    words += ["--batch-size", "16", "--scheduler", "DPMSolverMultistepScheduler", "--steps", "20"]
    words += ["--guidance", "7.5", "--size", "512", "--out", f"{source.root}/synthetic"]
    return _pcm("generate", *words)


def _generate_and_extract(store: str, source: DataSource) -> str:
    words = [f"{source.root}/synthetic", *source.clip_options(), "--out", store]
    return f"{_generate(source)} && {_pcm('extract', *words)}"


def _extract_real_images(store: str, source: DataSource, loop: str) -> str:
    split = loop if source.split is None else source.split
    words = [f"{source.root}/images", "--captions", source.captions]
    words += ["--split", split] if split else []
    return _pcm("extract", *words, *source.clip_options(), "--out", store)


def _build_concepts(path: str, source: DataSource, *words: str) -> str:
    # The seven templates, by all evidence those of the released concept files. The paper names
    # "A photo of {}".
    options = ["--templates", "simple", *source.clip_options(patches=False), "--out", path]
    return _pcm("build-concepts", *words, *options)


def _pcm(*words: str) -> str:
    return shell_command(words)


def _loop_of(key: str) -> str | None:
    """Return the loop of a key such as ``'val_dataloader.dataset.store'``."""
    loop, is_loader, _ = key.partition("_dataloader.")
    return loop if is_loader else None


def _training_dataset(cfg: Config) -> dict[str, Any]:
    return (cfg.get("train_dataloader") or {}).get("dataset") or {}
