"""The program ``pcm``: one table of all commands, which are imported only when they run."""

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from pcm_plugin import __version__
from pcm_plugin.errors import UserError, plain_errors


class Command(NamedTuple):
    """An entry of ``pcm --help``.

    Attributes:
        module: Module below :mod:`pcm_plugin.commands`, with a function ``main``.
        summary: One-line description, which is the first line of the docstring of the module.
    """

    module: str
    summary: str


GROUPS: dict[str, dict[str, Command]] = {
    "Caption images": {
        "caption": Command("caption", "Caption image files and folders."),
        "webui": Command("webui", "Caption images in the browser."),
    },
    "Make a data set": {
        "make-dataset": Command(
            "make_dataset", "Make a training set from captions: images, features and a config."
        ),
        "convert-captions": Command(
            "convert_captions", "Convert captions to COCO JSON, a COCO results file or JSONL."
        ),
        "build-vocabulary": Command(
            "build_vocabulary",
            "Build a vocabulary of the words of captions, or of pieces of words.",
        ),
        "build-concepts": Command(
            "build_concepts", "Build a concept file: words and their CLIP text embeddings."
        ),
        "build-language-model": Command(
            "build_language_model", "Build the folder of a small language model, without weights."
        ),
        "rephrase": Command(
            "rephrase",
            "Rephrase captions with a language model, as prompts for images.",
        ),
        "generate": Command("generate", "Generate images of captions with a diffusion pipeline."),
        "import-images": Command(
            "import_images", "Import images with captions from Parquet files."
        ),
        "extract": Command(
            "extract", "Extract CLIP features of images and captions to a feature store."
        ),
        "refine": Command(
            "refine", "Refine pairs of captions and synthetic images, or image features."
        ),
        "store": Command("store", "Inspect, verify, merge and export feature stores."),
    },
    "Train and evaluate": {
        "train": Command("train", "Train the model of a config."),
        "test": Command("test", "Generate captions for the test split of a config and score them."),
        "tune": Command("tune", "Choose the settings of the search on the validation split."),
        "score": Command("score", "Score predicted captions against references."),
        "compare": Command("compare", "Compare a captioner with models of transformers."),
        "report": Command("report", "Write a web page about one training run."),
        "export": Command("export", "Export a trained captioner to a single file."),
    },
    "Published systems": {
        "paper-table": Command(
            "paper_table", "Run the rows of a paper's table; print own and published scores."
        ),
        "convert-pcmnet-checkpoint": Command(
            "convert_pcmnet_checkpoint", "Convert a checkpoint of the released PCM-Net."
        ),
        "import-concepts": Command(
            "import_concepts", "Convert the concept pickle of the released PCM-Net."
        ),
        "import-features": Command(
            "import_features", "Import released features (.npz) and annotations (a pickle)."
        ),
    },
    "Toy world": {
        "demo": Command("toyworld.demo", "Run the complete pipeline in the toy world."),
        "results": Command(
            "toyworld.results", "Train and test all systems in the toy world, with several seeds."
        ),
        "train-prior": Command(
            "toyworld.train_prior", "Train the toy world's CLIP and diffusion models."
        ),
        "measure-prior": Command(
            "toyworld.measure_prior", "Measure the toy world's CLIP and diffusion models."
        ),
    },
    "Environment": {
        "doctor": Command(
            "doctor", "Check the environment, and print the command that repairs each problem."
        ),
    },
}
"""All commands by group and name."""

COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}
"""All commands by name."""


def usage() -> str:
    """Return the help of the program."""
    width = max(map(len, COMMANDS))
    lines = [
        "usage: pcm COMMAND [arguments]",
        "       pcm COMMAND --help",
        "       pcm --version",
        "",
        "Image captioning from synthetic image-caption pairs.",
    ]
    for group, commands in GROUPS.items():
        lines += ["", group]
        lines += [f"  {name:{width}}  {entry.summary}" for name, entry in commands.items()]
    return "\n".join(lines)


def find_command(name: str) -> Command:
    """Return the command of a name.

    Raises:
        UserError: If the command does not exist.
    """
    if name in COMMANDS:
        return COMMANDS[name]
    # This also finds the names of modules and of files in tools/, such as `make_dataset.py`.
    close = difflib.get_close_matches(name, COMMANDS)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise UserError(f"pcm has no command {name!r}: {hint}`pcm --help` lists all commands")


@plain_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``pcm``.

    Args:
        arguments: Command line without the name of the program. Defaults to None, which takes that
            of the process.

    Raises:
        SystemExit: If the command fails, or prints its help.
    """
    name, *rest = (sys.argv[1:] if arguments is None else list(arguments)) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(usage())
    elif name == "--version":
        print(f"pcm-plugin {__version__}")
    else:
        command = find_command(name)
        # argparse shows it as the name of the program.
        sys.argv = [f"pcm {name}", *rest]
        try:
            # A command imports what it needs when it runs.
            importlib.import_module(f"pcm_plugin.commands.{command.module}").main()
        except ModuleNotFoundError:
            from pcm_plugin.mm_packages import require_mm_packages

            require_mm_packages()
            raise
