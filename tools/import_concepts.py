"""Turn the concept pickle of the released PCM-Net into a concept file.

python tools/import_concepts.py coco400_embeddings_ViT-B32_with_ensemble.pickle \
    concepts.safetensors --model ViT-B-32-quickgelu
"""

import argparse
import sys

from pcm_plugin.synthesis.concepts import save_concepts
from pcm_plugin.synthesis.released_concepts import read_released_concepts


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Import a released concept pickle.")
    parser.add_argument("src", help="the pickle; nothing in it is executed")
    parser.add_argument("dst", help="the concept file to write (.safetensors)")
    parser.add_argument("--model", help="open_clip's name of the CLIP, kept as a remark")
    parser.add_argument("--pretrained", default="openai", help="its weights, kept as a remark")
    args = parser.parse_args()
    try:
        words, embeddings = read_released_concepts(args.src)
        save_concepts(args.dst, words, embeddings, args.model, args.pretrained)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    print(f"{args.dst}: {len(words)} concepts of width {embeddings.shape[1]}")


if __name__ == "__main__":
    main()
