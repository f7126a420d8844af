"""Convert the concept pickle of the released PCM-Net.

pcm import-concepts coco400_embeddings_ViT-B32_with_ensemble.pickle \
    concepts.safetensors --model ViT-B-32-quickgelu
"""

import argparse

from pcm_plugin.errors import plain_errors


@plain_errors()
def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description="Convert a released concept pickle to a concept file."
    )
    parser.add_argument("src", help="the pickle; it is read without executing anything in it")
    parser.add_argument("dst", help="concept file to write (.safetensors)")
    parser.add_argument("--model", help="open_clip's name of the CLIP, to be recorded")
    parser.add_argument("--pretrained", default="openai", help="its weights, to be recorded")
    args = parser.parse_args()
    from pcm_plugin.formats.concept_set import save_concepts
    from pcm_plugin.synthesis.released.concepts import read_released_concepts

    words, embeddings = read_released_concepts(args.src)
    save_concepts(args.dst, words, embeddings, args.model, args.pretrained)
    print(f"{args.dst}: {len(words)} concepts of width {embeddings.shape[1]}")
