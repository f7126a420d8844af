"""Build the folder of a small language model, without weights.

pcm build-language-model CAPTIONS --out FOLDER
pcm build-language-model CAPTIONS --kind bert --out FOLDER
"""

import argparse

from pcm_plugin.commands.caption_arguments import add_caption_arguments, caption_file
from pcm_plugin.errors import plain_errors


@plain_errors()
def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_caption_arguments(parser)
    parser.add_argument(
        "--kind",
        choices=("gpt2", "bert"),
        default="gpt2",
        help="gpt2: byte-level BPE and config.json; bert: only a lower-case WordPiece tokenizer, "
        "as in BLIP",
    )
    parser.add_argument("--vocab-size", type=int, default=8192, help="maximum number of tokens")
    parser.add_argument("--layers", type=int, default=2, help="for gpt2")
    parser.add_argument("--width", type=int, default=128, help="for gpt2")
    parser.add_argument("--heads", type=int, default=4, help="for gpt2")
    parser.add_argument(
        "--positions", type=int, default=128, help="for gpt2: maximum sequence length in tokens"
    )
    parser.add_argument("--out", required=True, help="folder to create")
    args = parser.parse_args()
    from pcm_plugin.synthesis.pipeline.language_model import build_bert_tokenizer, build_gpt2

    captions, report = caption_file(args)
    print(report, flush=True)
    texts = (caption.text for caption in captions)
    if args.kind == "bert":
        size = build_bert_tokenizer(texts, args.out, args.vocab_size)
    else:
        size = build_gpt2(
            texts,
            args.out,
            vocab_size=args.vocab_size,
            layers=args.layers,
            width=args.width,
            heads=args.heads,
            positions=args.positions,
        )
    print(f"{args.out}: {size} tokens")
