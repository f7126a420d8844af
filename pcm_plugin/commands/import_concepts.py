"""Turn the concept pickle of the released PCM-Net into a concept file.

python tools/import_concepts.py coco400_embeddings_ViT-B32_with_ensemble.pickle \
    concepts.safetensors --model ViT-B-32-quickgelu
"""

import argparse

from pcm_plugin.errors import plain_errors
from pcm_plugin.formats.concept_set import save_concepts
from pcm_plugin.synthesis.released.concepts import read_released_concepts


@plain_errors()
def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Import a released concept pickle.")
    parser.add_argument("src", help="the pickle; nothing in it is executed")
    parser.add_argument("dst", help="the concept file to write (.safetensors)")
    parser.add_argument("--model", help="open_clip's name of the CLIP, kept as a remark")
    parser.add_argument("--pretrained", default="openai", help="its weights, kept as a remark")
    args = parser.parse_args()
    words, embeddings = read_released_concepts(args.src)
    save_concepts(args.dst, words, embeddings, args.model, args.pretrained)
    print(f"{args.dst}: {len(words)} concepts of width {embeddings.shape[1]}")
