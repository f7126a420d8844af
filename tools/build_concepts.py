"""Embed a list of words as the concepts that PCM-Net looks for in images.

    python tools/build_concepts.py WORDS --model local-dir:CLIP --out concepts.safetensors

WORDS is a text file with a word, or a short phrase, a line.
"""

import argparse

from pcm_plugin.models.backbones.open_clip_backbone import OpenCLIPBackbone
from pcm_plugin.plain_errors import plain_errors
from pcm_plugin.synthesis.concepts import TEMPLATES, embed_words, read_words, save_concepts
from pcm_plugin.synthesis.extract import model_identity


def main() -> None:
    """Read the command line and embed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", help="text file, a word a line")
    parser.add_argument("--model", required=True, help="open_clip name, or local-dir:FOLDER")
    parser.add_argument("--pretrained", help="open_clip's tag of the weights")
    parser.add_argument("--out", required=True, help="concept file to write")
    parser.add_argument(
        "--templates",
        nargs="+",
        default=TEMPLATES,
        help="prompts to average over, each with {} for the word (default: the paper's)",
    )
    args = parser.parse_args()
    words = read_words(args.words)
    clip = OpenCLIPBackbone(args.model, args.pretrained)
    embeddings = embed_words(words, clip.clip, clip.tokenizer, args.templates)
    identity = model_identity(args.model)
    save_concepts(args.out, words, embeddings, identity, args.pretrained, args.templates)
    print(f"{args.out}: {len(words)} concepts of {identity}")


if __name__ == "__main__":
    with plain_errors():
        main()
