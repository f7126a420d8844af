"""Turn a checkpoint of the released PCM-Net into one that our configs load.

python tools/convert_pcmnet_checkpoint.py released.pth pcm_coco.safetensors \
    --vocabulary data/coco/vocabulary.txt
python tools/test.py configs/pcm_coco.py pcm_coco.safetensors
"""

import argparse
import json
from pathlib import Path

from pcm_plugin.errors import UserError, plain_errors
from pcm_plugin.formats.tensor_file import write_tensors
from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.models.released_checkpoint import convert_official, read_official


def convert(src: str, dst: str, vocabulary: str) -> str:
    """Convert one file.

    Returns:
        What was written and what a config needs for it, as text.

    Raises:
        MissingFileError: If a file is missing.
        UserError: If the checkpoint is not the released architecture's, or has another
            vocabulary.
    """
    if Path(dst).suffix != ".safetensors":
        raise UserError(f"DST={dst}: name it .safetensors, the format it is written in")
    words = Vocabulary.from_file(vocabulary)
    official = read_official(src)
    try:
        state, sizes = convert_official(official)
    except ValueError as error:
        raise UserError(f"{src}: {error}") from error
    if sizes.vocab_size != len(words):
        raise UserError(
            f"{src} has {sizes.vocab_size} words but {vocabulary} has {len(words)} (its lines and "
            "the stop token): give the vocabulary that it was trained with"
        )
    metadata = {
        "format": "pcm_plugin.PCMNet",
        "source": Path(src).name,
        "sizes": json.dumps(sizes._asdict()),
    }
    write_tensors(Path(dst), state, metadata)
    listing = "\n".join(f"  {name} = {value}" for name, value in sizes._asdict().items())
    return f"{dst}: {len(state)} tensors; the config needs\n{listing}\n  vocabulary = {vocabulary}"


@plain_errors()
def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Convert a released PCM-Net checkpoint.")
    parser.add_argument("src", help="a .pth of the released trainer, or a .safetensors state dict")
    parser.add_argument("dst", help="the .safetensors file to write")
    parser.add_argument("--vocabulary", required=True, help="the vocabulary.txt of that model")
    args = parser.parse_args()
    print(convert(args.src, args.dst, args.vocabulary))
