"""Score a file of captions, without a model.

python tools/score.py captions.json captions_val2014.json
python tools/score.py captions.json dataset_coco.json --split test --scorers BLEU CIDEr METEOR
python tools/score.py captions.json refs.json --scorers CLIPScore --images val2014 \
    --model ViT-B-32-quickgelu --pretrained openai
python tools/score.py captions.json nocaps_val.json --groups nocaps_val.json

The captions are a COCO results file, [{"image_id": 7, "caption": "a dog"}, ...]; the references any
caption file that names images: COCO's, Karpathy's, a Flickr token file, a table or JSONL.
"""

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from pcm_plugin.datasets.durable import write_json
from pcm_plugin.datasets.images import read_image
from pcm_plugin.evaluation import CaptionMetric
from pcm_plugin.evaluation.annotations import find_image, read_predictions
from pcm_plugin.evaluation.caption_metric import KNOWN, TOKENIZERS
from pcm_plugin.evaluation.scorers import NO_JAVA
from pcm_plugin.plain_errors import plain_errors
from pcm_plugin.synthesis.sources import captioned_images

BATCH = 32


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("predictions", help="COCO results file")
    parser.add_argument("references", help="caption file with the references")
    parser.add_argument("--split", help="of the references; default: 'test', if they know splits")
    parser.add_argument("--scorers", nargs="+", choices=KNOWN, default=list(NO_JAVA))
    parser.add_argument("--tokenizer", choices=TOKENIZERS, default="ptb")
    parser.add_argument("--train-captions", help="caption file, for diversity's `novel`")
    parser.add_argument("--images", help="folder of the images, for CLIPScore")
    parser.add_argument("--model", help="open_clip model, for CLIPScore")
    parser.add_argument("--pretrained", help="its weights: open_clip's tag, or a file")
    parser.add_argument("--per-image", help="JSON file for the scores of each image")
    parser.add_argument(
        "--groups",
        metavar="FILE",
        help="JSON in COCO's form whose images have a group: each is scored by itself too",
    )
    parser.add_argument("--group-field", default="domain", help="what names it (NoCaps': domain)")
    parser.add_argument("--out", help="JSON file for the scores")
    args = parser.parse_args()
    wants_clip = "CLIPScore" in args.scorers
    if wants_clip and not (args.images and args.model):
        parser.error("CLIPScore needs --images FOLDER and --model NAME")
    if not wants_clip and (args.images or args.model or args.pretrained):
        parser.error("--images, --model and --pretrained are for --scorers CLIPScore")
    return args


def find_files(metric: CaptionMetric, folder: Path, ids: list) -> list[Path]:
    """The image file of each id, by what the references say."""
    assert metric.reference_file is not None
    names = {i.image_id: i.file_name for i in captioned_images(metric.reference_file)}
    files = [folder / names[find_image(i, names) or ""] for i in ids]
    absent = [file for file in files if not file.is_file()]
    if absent:
        raise FileNotFoundError(f"{len(absent)} of {len(files)} images are missing: {absent[0]}")
    return files


def read_pixels(metric: CaptionMetric, files: list[Path]) -> torch.Tensor:
    """Images as the metric's CLIP wants them: (B, 3, H, W)."""
    return torch.stack([metric.clip.preprocess(read_image(file)) for file in files])


def score(args: argparse.Namespace) -> dict[str, float]:
    """Score the captions that have references."""
    captions = read_predictions(args.predictions)
    clip = {"model_name": args.model, "pretrained": args.pretrained}
    metric = CaptionMetric(
        args.scorers,
        args.tokenizer,
        args.references,
        args.split,
        {"type": "pcm_plugin.OpenCLIPBackbone", **clip} if args.model else None,
        args.train_captions,
        per_image=args.per_image,
        groups=args.groups,
        group_field=args.group_field,
        prefix="",
    )
    assert metric.references is not None
    found = {i: find_image(i, metric.references) for i in captions}
    scored = [i for i, key in found.items() if key is not None]
    if not scored:
        some, other = next(iter(captions)), next(iter(metric.references))
        raise ValueError(
            f"no image of {args.predictions} is in {args.references}: ids are like {some!r} in "
            f"the one and like {other!r} in the other"
        )
    if len({found[i] for i in scored}) < len(scored):
        raise ValueError(f"several ids of {args.predictions} are one image of {args.references}")
    absent = len(metric.references.keys() - found.values())
    if absent:
        print(f"{absent} of {len(metric.references)} images with references have no caption")
    if len(scored) < len(captions):
        print(f"{len(captions) - len(scored)} of {len(captions)} captions have no reference")
    files = find_files(metric, Path(args.images), scored) if args.images else []
    for start in tqdm(range(0, len(scored), BATCH), desc="batches", disable=not files):
        ids = scored[start : start + BATCH]
        batch = {"images": read_pixels(metric, files[start : start + BATCH])} if files else {}
        samples = [{"image_id": i, "pred_caption": captions[i]} for i in ids]
        metric.process(batch, samples)
    return metric.evaluate(len(scored))


def main() -> None:
    """Run the command."""
    args = parse_args()
    with plain_errors():
        scores = score(args)
        if args.out:
            write_json(Path(args.out), scores)
    width = max(15, *map(len, scores))
    for name, value in scores.items():
        print(f"{name:{width}}{value:10.4f}")


if __name__ == "__main__":
    main()
