"""Choice of pairs of captions and synthetic images: SynC, or a filter by CLIP score.

SynC (ACM MM 2025): a generated image often lacks something that its caption mentions, while the
image of another caption may show it. For each caption, the K nearest images are candidates. Each
candidate retrieves its two nearest captions; its score is the best sentence cosine of these with
the caption. The caption is assigned to the candidate with the best score, and the worst 10 % of the
pairs are dropped.

The release retrieves with SigLIP 2 ViT-B/16-256 and compares sentences with
``paraphrase-multilingual-MiniLM-L12-v2``, while PCM-Net trains on the features of CLIP. Here an
assigning store and a sentence encoder do the same; without them the store's own features do both.
"""

import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.formats.atomic_io import sha256
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.pair_selection import FORMAT, PAIRS_FILE, PairSelection
from pcm_plugin.formats.shards import Shard, ShardFolder
from pcm_plugin.formats.tensor_file import write_tensors
from pcm_plugin.synthesis.ranks import Rank, deterministic_cpu_threads
from pcm_plugin.synthesis.refine.assignment import Among, PairAssignment
from pcm_plugin.synthesis.refine.sentence_encoder import SentenceEncoder
from pcm_plugin.synthesis.refine.settings import RefineSettings
from pcm_plugin.synthesis.sharing import claim_shards


def refine_pairs(
    store: str | os.PathLike,
    settings: RefineSettings,
    out: str | os.PathLike,
    sentence_feats: str | os.PathLike | None = None,
    chunk: int = 8192,
    device: str | None = None,
    rank: Rank | None = None,
    assign_store: str | os.PathLike | None = None,
    among: Among | None = None,
) -> PairSelection:
    """Choose pairs of images and captions, and write them to ``OUT/pairs.safetensors``.

    Several ranks share the chunks. If the folder has chunks already, only the missing ones are
    made. Memory holds two chunks of features and their products.

    Args:
        store: Folder of the finished training store, for which the pairs are written.
        settings: Settings of the choice.
        out: Folder to write.
        sentence_feats: A safetensors file with ``sentence_feats`` (captions, Ds), one row per
            caption in the order of ``store``, in place of a sentence encoder.
        chunk: Images, or captions, per chunk. Defaults to 8,192.
        device: Device of the computation. Defaults to a GPU if there is one.
        rank: Rank of this process. Defaults to that of torchrun or srun.
        assign_store: Folder of a finished store of another model with the same images and
            captions, in any order, whose features are used for the assignment. Defaults to
            ``store``.
        among: Images and captions of ``store`` that are assigned to each other; those of validation
            are kept out in this way. Defaults to None, all images and captions.

    Returns:
        The chosen pairs.

    Raises:
        MissingFileError: If a store or the sentence encoder is missing.
        UserError: If a store is unfinished or has no captions or no images, the stores do not
            contain the same images and captions, the folder was made with other settings, a filter
            lacks the own image of a caption, ``sentence_feats`` do not fit, or no pair is left.
    """
    if chunk < 1:
        raise UserError(f"chunk must be at least 1, got {chunk}")
    if sentence_feats is not None and settings.sentence_encoder is not None:
        raise UserError("sentence_feats and sentence_encoder exclude each other: pass one of them")
    features = FeatureStore(store)
    if not features.num_captions:
        raise UserError(f"the images of {store} have no captions: there is nothing to refine")
    assigning = features if assign_store is None else FeatureStore(assign_store)
    for each in (features, assigning):
        each.require_images("refinement")
    rank = rank or Rank.from_environment()
    device = device or rank.device()
    encoder = None
    if settings.sentence_encoder is not None:
        encoder = SentenceEncoder(settings.sentence_encoder, settings.pooling, device)
    made_with = settings.as_record() | {"chunk": chunk, "store": features.identity}
    made_with["assign_store"] = None if assign_store is None else assigning.identity
    made_with["sentence_encoder"] = encoder and encoder.identity
    if among is not None:
        made_with["among"] = among.identity
    made_with["sentence_feats"] = sentence_feats and sha256(Path(sentence_feats))[:16]
    ShardFolder.check_settings(out, FORMAT, made_with)
    run = PairAssignment(features, assigning, settings, chunk, device, encoder, among)
    if sentence_feats is not None:
        run.sentences = [_read_sentences(sentence_feats, features)[run.captions]]
    passes: list[tuple[list[Shard], Callable]] = []
    if encoder is not None:
        passes.append((run.plan("sentences", len(run.captions)), run.sentences_of_captions))
    if settings.method == "sync":
        # Before a caption can be assigned, the nearest captions of all images must be known.
        passes.append((run.plan("captions-of-images", len(run.images)), run.captions_of_images))
    captions = run.plan("images-of-captions", len(run.captions))
    passes.append((captions, run.images_of_captions))
    folder = ShardFolder.open_for_write(
        out, FORMAT, made_with, [s for plan, _ in passes for s in plan]
    )
    with deterministic_cpu_threads(device):
        for plan, work in passes:
            for index, tick in claim_shards(folder, plan, rank, f"refine: {work.__name__}", "row"):
                name = plan[index].name
                rows = range(index * chunk, index * chunk + plan[index].count)
                write_tensors(folder.path / f"{name}.safetensors", work(rows, folder))
                tick(len(rows))
                folder.commit(plan[index], [f"{name}.safetensors"], len(rows))
    pairs = run.choose(folder, captions)
    if rank.index == 0:
        pairs.to_file(folder.path / PAIRS_FILE, features.identity)
    return pairs


def check_among(out: str | os.PathLike, among: Among | None) -> None:
    """Check that existing pairs were chosen among the images and captions that are trained on.

    Args:
        out: Folder of :func:`refine_pairs`, which need not exist.
        among: The images and captions. None for all of the store.

    Raises:
        UserError: If others were assigned, such as those that have been held out since.
    """
    if not (Path(out) / "manifest.json").is_file():
        return
    folder = ShardFolder(out, FORMAT)
    made_among, wanted = folder.manifest["settings"].get("among"), among and among.identity
    if folder.shards and made_among != wanted:
        raise UserError(
            f"{out} was refined among {made_among or 'all images and captions'}, but "
            f"{wanted or 'all images and captions'} are trained on now, because the held-out "
            f"captions or the photos have changed: remove {out}, and run the stage refine of pcm "
            "make-dataset"
        )


def _read_sentences(path: str | os.PathLike, store: FeatureStore) -> Tensor:
    try:
        rows = load_file(path)["sentence_feats"]
    except (SafetensorError, KeyError) as error:
        raise UserError(f"{path} must contain a tensor sentence_feats: {error}") from None
    if rows.dim() != 2 or len(rows) != store.num_captions:
        raise UserError(
            f"{path}: sentence_feats must have one row for each of the {store.num_captions} "
            f"captions of {store.path}, got shape {tuple(rows.shape)}"
        )
    return rows
