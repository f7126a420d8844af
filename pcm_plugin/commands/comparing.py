"""Comparison of captioning systems, from the options of ``pcm compare``."""

import argparse
import re
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import torch
from tqdm import tqdm

from pcm_plugin.apis import CaptionInferencer
from pcm_plugin.apis.image_inputs import InputImage, load_input
from pcm_plugin.commands.caption_arguments import open_captions
from pcm_plugin.commands.compared_systems import (
    System,
    captioner_system,
    default_device,
    open_others,
    system_names,
)
from pcm_plugin.commands.comparison_tables import Outcome, write_outputs
from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.evaluation.matching import ImageName
from pcm_plugin.evaluation.references import References
from pcm_plugin.evaluation.scoring import CaptionResult, CaptionScorer, error_text
from pcm_plugin.formats.atomic_io import write_json
from pcm_plugin.formats.image_ids import name_some, normalize_id
from pcm_plugin.formats.images.folder import printable
from pcm_plugin.models.backbones import OpenCLIPBackbone


def compare(args: argparse.Namespace, ids: dict[str, int | str]) -> list[str]:
    """Compare the systems of the command line, print the table and write the outputs.

    Args:
        args: Parsed and checked arguments.
        ids: Image files with their ids.

    Returns:
        Problems: images that could not be read, and systems that failed.

    Raises:
        MissingFileError: If a file, a folder or a model does not exist.
        UserError: If an argument is invalid. Both are raised before the first caption.
    """
    system_name = system_names(args)
    captions_files = find_captions_files(args, [*system_name.values()])
    names = {path: ImageName(normalize_id(i), path) for path, i in ids.items()}
    references = match_references(args, names)
    others = open_others(args, names)
    inferencer = CaptionInferencer(args.config, args.weights, args.device, show_progress=False)
    clip, clip_name = open_clip(args, inferencer)
    scorer = CaptionScorer(args.scorers, "ptb", clip, language=args.language)
    decoding = {key: getattr(args, key) for key in ("beam_size", "rerank", "rerank_weight")}
    changes = {key: value for key, value in decoding.items() if value is not None}
    inferencer.model.decoding.updated(changes)  # reports invalid settings
    systems = [captioner_system(args, inferencer, changes), *others]
    for system in systems:
        system.name = system_name[system.name]
    feats = read_images([*ids], args.batch_size, clip)
    paths = [*feats]
    if not paths:
        raise UserError(f"none of the {len(ids):,} images can be read")
    problems = []
    if len(paths) < len(ids):
        problems.append(f"{len(ids) - len(paths):,} of {len(ids):,} images could not be read")
    images = [
        CaptionResult(names[path].image_id, "", references.get(path, []), feats[path])
        for path in paths
    ]
    outcomes: list[Outcome] = []
    notes = describe(systems, references, clip_name)
    if references or "diversity" in args.scorers:
        notes.append(f"tokens of the scores: {scorer.tokens}")
    for system in systems:
        outcome = run_system(system, paths, images, scorer)
        if outcome.error:
            problems.append(f"{system.name} failed: {outcome.error}")
            tqdm.write(problems[-1], sys.stderr)
        outcomes.append(outcome)
        if system.name in captions_files and not outcome.error:
            write_captions(captions_files[system.name], outcome, paths, ids)
        is_last = len(outcomes) == len(systems)
        remarks = [*dict.fromkeys(scorer.remarks)]
        write_outputs(args, outcomes, paths, ids, references, [*notes, *remarks], is_last)
    return problems


def match_references(args: argparse.Namespace, names: dict[str, ImageName]) -> dict[str, list[str]]:
    """Return the references of each image file; empty without ``--references``.

    Raises:
        UserError: If an image has none.
    """
    if not args.references:
        return {}
    references = References(open_captions(args, args.references))
    print(references.file.scan(), file=sys.stderr)
    matched = references.match([*names.values()])
    without = [
        path for path, image in zip(names, matched, strict=True) if not (image and image.captions)
    ]
    if without:
        shown = name_some(printable(path) for path in without)
        raise UserError(
            f"{len(without):,} of {len(names):,} images have no reference in {references}: "
            f"{shown}; ids there are {name_some(i.image_id for i in references.images)}"
        )
    unused = len(references.without_caption(matched))
    if unused:
        print(f"{unused:,} images of {references} are not among --images", file=sys.stderr)
    return {path: image.captions for path, image in zip(names, matched, strict=True) if image}


def open_clip(
    args: argparse.Namespace, inferencer: CaptionInferencer
) -> tuple[OpenCLIPBackbone | None, str]:
    """Return the CLIP for CLIPScore and its description; None if it is not computed.

    Raises:
        UserError: If the captioner has no CLIP with a text tower, or open_clip has no such model.
    """
    if "CLIPScore" not in args.scorers:
        return None, ""
    if args.clip_model:
        clip = OpenCLIPBackbone(args.clip_model, args.clip_pretrained).eval()
        return clip.to(args.device or default_device()), f"{clip_name(clip)} (--clip-model)"
    own = inferencer.backbone
    if not isinstance(own, OpenCLIPBackbone):
        raise UserError(
            f"{args.weights} has a {type(own).__name__}, which encodes no texts: choose a CLIP for "
            "CLIPScore with --clip-model NAME"
        )
    return own, (
        f"{clip_name(own)}, the CLIP of {Path(args.weights).name}, which favors captioners that "
        "use the same CLIP"
    )


def clip_name(clip: OpenCLIPBackbone) -> str:
    """Return the name of a CLIP and its weights for a note, without the path of a folder."""
    folder = clip.model_name.removeprefix("local-dir:")
    if folder != clip.model_name:
        return f"the model in the folder {Path(folder).resolve().name}"
    return clip.model_name + (f" ({clip.pretrained})" if clip.pretrained else "")


def read_images(
    paths: list[str], batch_size: int, clip: OpenCLIPBackbone | None
) -> dict[str, torch.Tensor | None]:
    """Read all images once, and embed them for CLIPScore.

    Returns:
        The CLIP embedding (Dc,) of each image that can be read, or None without ``clip``. The
        others are reported on stderr.
    """
    feats: dict[str, torch.Tensor | None] = {}
    device = None if clip is None else next(clip.clip.parameters()).device
    remaining = iter(tqdm(paths, desc="reading images", disable=not sys.stderr.isatty()))
    while batch := list(islice(remaining, batch_size)):
        inputs = [load_input(i, path, skip_invalid=True) for i, path in enumerate(batch)]
        for item in inputs:
            if isinstance(item, dict):
                tqdm.write(f"skipped: {printable(item['error'])}", sys.stderr)
        valid = [
            (path, x.image)
            for path, x in zip(batch, inputs, strict=True)
            if isinstance(x, InputImage)
        ]
        embedded: list[torch.Tensor | None] = [None] * len(valid)
        if clip is not None and valid:
            pixels = torch.stack([clip.preprocess(image) for _, image in valid])
            embedded = list(clip(pixels.to(device))[1].float().cpu())
        feats.update({path: row for (path, _), row in zip(valid, embedded, strict=True)})
    return feats


def run_system(
    system: System, paths: list[str], images: list[CaptionResult], scorer: CaptionScorer
) -> Outcome:
    """Caption all images with a system and score the captions; an error becomes part of the result.

    Args:
        system: The system.
        paths: Image files.
        images: The images with references and embeddings, in the same order.
        scorer: The scores.
    """
    bar = tqdm(total=len(paths), desc=system.name, disable=not sys.stderr.isatty())
    captions: list[str] = []
    with bar:
        try:
            for caption in system.caption(paths):
                captions.append(caption)
                bar.update()
            pairs = zip(images, captions, strict=True)
            results = [image._replace(caption=caption) for image, caption in pairs]
        except Exception as error:  # whatever one system raises, the others are compared
            plain = isinstance(error, UserError | MissingFileError)
            reason = str(error) if plain else error_text(error)
            return Outcome(system.name, [], None, " ".join(reason.split()))
    return Outcome(system.name, captions, scorer.score(results))


def find_captions_files(args: argparse.Namespace, names: list[str]) -> dict[str, Path]:
    """Return the file of ``--captions`` of each system that is no file of captions itself.

    Raises:
        UserError: If two outputs are the same file, or an output is an input.
    """
    files: dict[str, Path] = {}
    if args.captions:
        for name in names:
            if not name.endswith(".json"):
                file = re.sub(r"[^\w.-]+", "--", name) + ".json"
                files[name] = Path(args.captions, file)
    outputs = [Path(name) for name in (args.out, args.scores, args.html) if name]
    counts = Counter(path.resolve() for path in [*outputs, *files.values()])
    inputs = {Path(name).resolve() for name in (args.weights, *args.others)}
    inputs |= {Path(args.references).resolve()} if args.references else set()
    for path in [*outputs, *files.values()]:
        if counts[path.resolve()] > 1:
            raise UserError(f"two outputs would be written to {path}: choose another name")
        if path.resolve() in inputs:
            raise UserError(f"the output {path} would replace an input: choose another name")
    return files


def write_captions(
    path: Path, outcome: Outcome, paths: list[str], ids: dict[str, int | str]
) -> None:
    """Write the COCO results file of a system."""
    rows = [
        {"image_id": ids[path], "image": path, "caption": caption}
        for path, caption in zip(paths, outcome.captions, strict=True)
    ]
    write_json(path, rows)


def describe(systems: list[System], references: dict[str, list[str]], clip_name: str) -> list[str]:
    """Return notes about prompts, the CLIP of CLIPScore and the references."""
    notes = [f"prompt of {s.name}: {s.prompt}" for s in systems if s.prompt is not None]
    if clip_name:
        notes.append(f"CLIPScore is computed with {clip_name}")
    if not references:
        notes.append("no references: the scores do not tell how correct the captions are")
    return notes
