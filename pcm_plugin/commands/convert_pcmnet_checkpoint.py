"""Convert a checkpoint of the released PCM-Net.

pcm convert-pcmnet-checkpoint released.pth pcm_coco.safetensors \
    --vocabulary data/coco/vocabulary.txt
pcm test configs/pcm_coco.py pcm_coco.safetensors
"""

import argparse
import json
from pathlib import Path

from pcm_plugin.errors import UserError, plain_errors


def convert(src: str, dst: str, vocabulary: str) -> str:
    """Convert a checkpoint.

    Args:
        src: Released checkpoint.
        dst: File to write.
        vocabulary: Vocabulary of the model.

    Returns:
        Summary of the file and of the settings that a config needs for it.

    Raises:
        MissingFileError: If a file is missing.
        UserError: If the checkpoint has another architecture or vocabulary.
    """
    from pcm_plugin.formats.tensor_file import write_tensors
    from pcm_plugin.formats.vocabulary import Vocabulary
    from pcm_plugin.models.released_checkpoint import convert_official, read_official

    if Path(dst).suffix != ".safetensors":
        raise UserError(f"DST must end in .safetensors, got {dst}")
    words = Vocabulary.from_file(vocabulary)
    official = read_official(src)
    try:
        state, sizes = convert_official(official)
    except UserError as error:
        raise UserError(f"{src}: {error}") from error
    if sizes.vocab_size != len(words):
        raise UserError(
            f"--vocabulary must have {sizes.vocab_size} words (including the stop token) as {src}, "
            f"got {len(words)} in {vocabulary}: pass the vocabulary of the training"
        )
    metadata = {
        "format": "pcm_plugin.PCMNet",
        "source": Path(src).name,
        "sizes": json.dumps(sizes._asdict()),
    }
    write_tensors(Path(dst), state, metadata)
    settings = {**sizes._asdict(), "vocabulary": vocabulary}
    listing = "\n".join(f"  {name} = {value}" for name, value in settings.items())
    return f"{dst}: {len(state)} tensors. Settings of the config:\n{listing}"


@plain_errors()
def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("src", help=".pth file of the released trainer, or .safetensors state dict")
    parser.add_argument("dst", help=".safetensors file to write")
    parser.add_argument("--vocabulary", required=True, help="vocabulary.txt of the model")
    args = parser.parse_args()
    print(convert(args.src, args.dst, args.vocabulary))
