"""Which caption goes with which synthetic image: pairs chosen from a feature store.

SynC (ACM MM 2025): a diffusion model often misses what a caption says, while another caption's
image may show it. For each caption the K nearest images are looked at; each is scored by its own
two nearest captions: the best cosine of their sentence embeddings with the caption's. The caption
goes to the image of the best score, and the worst tenth of the pairs is dropped. Sentence
embeddings are here CLIP's own text features, which the store has; the paper has a sentence
encoder's, which ``sentence_feats`` takes.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pcm_plugin.datasets.durable import sha256
from pcm_plugin.datasets.feature_store import FeatureStore
from pcm_plugin.datasets.pairs import Pairs
from pcm_plugin.datasets.shards import Shard, ShardFolder
from pcm_plugin.datasets.tensor_file import write_tensors
from pcm_plugin.models.functional.retrieval import nearest
from pcm_plugin.synthesis.extract import CLIP_SCORE_SCALE
from pcm_plugin.synthesis.ranks import Rank, steady_threads
from pcm_plugin.synthesis.sharing import share

FORMAT = "pcm-pairs"
PAIRS = "pairs.safetensors"

_DECIMALS = 5


@dataclass(frozen=True)
class RefineSettings:
    """What the choice of pairs depends on, beside the store.

    Attributes:
        method: ``'sync'``, or ``'filter'``: each caption stays with its own image, its score is
            their CLIP score.
        num_images: K, images looked at for a caption. Defaults to 15, the paper's.
        num_captions: Captions looked at for an image. Defaults to 2, the paper's.
        keep: Share of the pairs that is kept, best scores first. Defaults to 0.9, the paper's, or
            to all where ``min_clip_score`` says what is dropped.
        min_clip_score: Drop pairs whose CLIP score (2.5 * cosine) is less.

    Raises:
        ValueError: If a setting is out of range.
    """

    method: str = "sync"
    num_images: int = 15
    num_captions: int = 2
    keep: float | None = None
    min_clip_score: float | None = None

    def __post_init__(self) -> None:
        if self.method not in ("sync", "filter"):
            raise ValueError(f"method={self.method!r}: give 'sync' or 'filter'")
        for name in ("num_images", "num_captions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: give at least 1")
        if not 0 < self.share <= 1:
            raise ValueError(f"keep={self.keep}: give a share between 0 and 1")

    @property
    def share(self) -> float:
        """The share of the pairs that is kept."""
        if self.keep is not None:
            return self.keep
        return 0.9 if self.min_clip_score is None else 1.0


def refine(
    store: str | os.PathLike,
    settings: RefineSettings,
    out: str | os.PathLike,
    sentence_feats: str | os.PathLike | None = None,
    chunk: int = 8192,
    device: str | None = None,
    rank: Rank | None = None,
) -> Pairs:
    """Choose pairs of images and captions, and write them to ``OUT/pairs.safetensors``.

    Several ranks share the work, chunk by chunk; a run over a folder that has chunks already
    makes those that are missing. Memory holds two chunks of features and their products.

    Args:
        store: Folder of a finished store.
        settings: What the choice depends on.
        out: Folder to write.
        sentence_feats: A safetensors file with ``sentence_feats`` (captions, Ds), a row a caption
            in the store's order. Defaults to the store's caption features.
        chunk: Images, or captions, at a time. Defaults to 8,192.
        device: Where to work. Defaults to a GPU if there is one.
        rank: Which of several processes this is. Defaults to what torchrun or srun say.

    Returns:
        The chosen pairs.

    Raises:
        FileNotFoundError: If there is no store.
        ValueError: If the store is unfinished or has no captions, the folder was made with other
            settings, ``sentence_feats`` do not fit, or no pair is left.
    """
    if chunk < 1:
        raise ValueError(f"chunk={chunk}: give at least 1")
    features = FeatureStore(store)
    if not features.num_captions:
        raise ValueError(f"the images of {store} have no captions: there is nothing to refine")
    rank = rank or Rank.from_environment()
    device = device or rank.device()
    run = _Run(features, settings, chunk, device, _read(sentence_feats, features))
    made_of: dict[str, Any] = {**settings.__dict__, "keep": settings.share}
    made_of |= {"chunk": chunk, "store": features.identity}
    made_of["sentence_feats"] = sentence_feats and sha256(Path(sentence_feats))[:16]
    images = run.plan("captions-of-images", len(features)) if settings.method == "sync" else []
    captions = run.plan("images-of-captions", features.num_captions)
    folder = ShardFolder.resume(out, FORMAT, made_of, images + captions)
    # Every image's nearest captions must be known before the first caption can be judged.
    with steady_threads(device):
        for plan, work in ((images, run.captions_of_images), (captions, run.images_of_captions)):
            for index, tick in share(folder, plan, rank, f"refine: {work.__name__}", "row"):
                name = plan[index].name
                rows = range(index * chunk, index * chunk + plan[index].count)
                write_tensors(folder.path / f"{name}.safetensors", work(rows, folder))
                tick(len(rows))
                folder.add(plan[index], [f"{name}.safetensors"], len(rows))
    pairs = _choose(folder, captions, settings)
    if rank.index == 0:
        pairs.to_file(folder.path / PAIRS, features.identity)
    return pairs


class _Run:
    def __init__(
        self,
        store: FeatureStore,
        settings: RefineSettings,
        chunk: int,
        device: str,
        sentences: Tensor | None,
    ) -> None:
        self._store, self._settings, self._device = store, settings, device
        self._chunk, self._sentences = chunk, sentences

    def plan(self, title: str, count: int) -> list[Shard]:
        return [
            Shard(f"{title}-{index:05d}", min(self._chunk, count - start), "rows")
            for index, start in enumerate(range(0, count, self._chunk))
        ]

    def captions_of_images(self, rows: range, folder: ShardFolder) -> dict[str, Tensor]:
        """The captions nearest to each image."""
        images = self._global(rows)
        _, where = nearest(images, self._caption_chunks(), self._settings.num_captions)
        return {"captions": where.cpu()}

    def images_of_captions(self, rows: range, folder: ShardFolder) -> dict[str, Tensor]:
        """The image of each caption, its CLIP score and the score by which it was chosen."""
        captions = self._captions(rows)
        if self._settings.method == "filter":
            own = torch.from_numpy(self._store.clip_scores[rows.start : rows.stop].copy())
            owners = torch.from_numpy(self._store.owners(rows))
            return {"image": owners, "clip_score": own, "score": own.clone()}
        cosines, images = nearest(captions, self._image_chunks(), self._settings.num_images)
        seen = self._captions_of(images.cpu(), folder)
        sentences = self._sentence(torch.tensor(rows))
        scores = []
        for candidate in seen.unbind(1):
            said = self._sentence(candidate.flatten()).unflatten(0, candidate.shape)
            scores.append(torch.einsum("qd,qcd->qc", sentences, said).amax(1))
        # A caption that is among an image's own has 1 there, and 1 is 1 whatever the last bits say.
        rounded = torch.stack(scores, 1).round(decimals=_DECIMALS)
        score = rounded.amax(1)
        ranks = torch.arange(rounded.shape[1]).where(rounded == score[:, None], rounded.shape[1])
        best = ranks.amin(1).to(images.device)[:, None]
        return {
            "image": images.gather(1, best)[:, 0].cpu(),
            "clip_score": CLIP_SCORE_SCALE * cosines.gather(1, best)[:, 0].cpu(),
            "score": score.cpu(),
        }

    def _captions_of(self, images: Tensor, folder: ShardFolder) -> Tensor:
        """(rows, K, c): the captions nearest to each candidate image."""
        parts = [
            load_file(folder.path / f"{shard.name}.safetensors")["captions"]
            for shard in self.plan("captions-of-images", len(self._store))
        ]
        return torch.cat(parts)[images]

    def _sentence(self, captions: Tensor) -> Tensor:
        if self._sentences is not None:
            return F.normalize(self._sentences[captions].float(), dim=-1)
        return self._store.rows("caption_feats", captions.numpy())

    def _global(self, rows: range) -> Tensor:
        return self._store.rows("global_feats", rows).to(self._device)

    def _captions(self, rows: range) -> Tensor:
        return self._store.rows("caption_feats", rows).to(self._device)

    def _image_chunks(self) -> Iterator[Tensor]:
        for start in range(0, len(self._store), self._chunk):
            yield self._global(range(start, min(start + self._chunk, len(self._store))))

    def _caption_chunks(self) -> Iterator[Tensor]:
        count = self._store.num_captions
        for start in range(0, count, self._chunk):
            yield self._captions(range(start, min(start + self._chunk, count)))


def _choose(folder: ShardFolder, plan: list[Shard], settings: RefineSettings) -> Pairs:
    parts = [load_file(folder.path / f"{shard.name}.safetensors") for shard in plan]
    image, clip_score, score = (
        torch.cat([part[key] for part in parts]).numpy() for key in ("image", "clip_score", "score")
    )
    # Of equal scores the best CLIP scores are kept, of equal ones of those the first captions.
    order = np.lexsort((-clip_score, -score))[: max(1, round(settings.share * len(score)))]
    if settings.min_clip_score is not None:
        order = order[clip_score[order] >= settings.min_clip_score]
    if not len(order):
        raise ValueError(
            f"no pair has min_clip_score={settings.min_clip_score}; the best has "
            f"{clip_score.max():.3f}"
        )
    caption = np.sort(order)
    return Pairs(image[caption], caption, clip_score[caption], score[caption])


def _read(path: str | os.PathLike | None, store: FeatureStore) -> Tensor | None:
    if path is None:
        return None
    try:
        rows = load_file(path)["sentence_feats"]
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} holds no sentence_feats: {error}") from None
    if rows.dim() != 2 or len(rows) != store.num_captions:
        raise ValueError(
            f"{path}: sentence_feats {tuple(rows.shape)}, but {store.path} has "
            f"{store.num_captions} captions: give a row a caption"
        )
    return rows
