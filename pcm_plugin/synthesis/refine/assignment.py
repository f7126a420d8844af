"""Assignment of captions to images by SynC, on the features of a store."""

import os
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.formats.atomic_io import fingerprint
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.pair_selection import PairSelection, load_pairs
from pcm_plugin.formats.shards import Shard, ShardFolder
from pcm_plugin.formats.store_matching import match_stores
from pcm_plugin.models.functional.retrieval import chunked_topk
from pcm_plugin.synthesis.extract.clip_features import CLIP_SCORE_SCALE
from pcm_plugin.synthesis.refine.sentence_encoder import SentenceEncoder
from pcm_plugin.synthesis.refine.settings import RefineSettings

# The released code compares sentences in half precision, which rounds more.
_DECIMALS = 5


class Among(NamedTuple):
    """Images and captions of a store that are assigned to each other.

    Attributes:
        images: (n,) int64, numbers of the images in the store.
        captions: (m,) int64, numbers of the captions in the store.
    """

    images: np.ndarray
    captions: np.ndarray

    @classmethod
    def of_pairs(cls, store: FeatureStore, path: str | os.PathLike) -> "Among":
        """Return the images and captions of a file of pairs.

        Args:
            store: The store of the pairs.
            path: File of ``pcm refine``, or of ``pcm make-dataset``.

        Raises:
            MissingFileError: If the file does not exist.
            UserError: If it does not hold pairs of this store.
        """
        pairs = load_pairs(store, path)
        return cls(np.unique(pairs.image), np.unique(pairs.caption))

    @property
    def identity(self) -> str:
        """Number of images and captions, and a hash of their numbers in the store."""
        digest = fingerprint([self.images.tolist(), self.captions.tolist()])
        return f"{len(self.images):,} images, {len(self.captions):,} captions ({digest})"


class PairAssignment:
    """Assignment of captions to images, in passes over both.

    Rows are numbered as in the assigning store, or among the selected images and captions of it.

    Args:
        store: The training store.
        assigning: The store whose features are used for the assignment; can be the same.
        settings: Settings of the choice.
        chunk: Images, or captions, per chunk.
        device: Device of the computation.
        encoder: Sentence encoder for captions. None uses the caption features of ``assigning``.
        among: Images and captions of the training store that are assigned to each other. Defaults
            to None: all.

    Attributes:
        images: (n,) int64, index in the training store of the image of each row.
        captions: (m,) int64, index in the training store of the caption of each row.
        sentences: Sentence embeddings in chunks. None until they are passed or loaded.

    Raises:
        UserError: If the stores do not contain the same images and captions, or a filter lacks the
            own image of a caption.
    """

    def __init__(
        self,
        store: FeatureStore,
        assigning: FeatureStore,
        settings: RefineSettings,
        chunk: int,
        device: str,
        encoder: SentenceEncoder | None,
        among: Among | None = None,
    ) -> None:
        self._store, self._assigning, self._settings = store, assigning, settings
        self._chunk, self._device, self._encoder = chunk, device, encoder
        self.sentences: list[Tensor] | None = None
        self.images, self.captions = np.arange(len(store)), np.arange(store.num_captions)
        if assigning is not store:
            self.images, self.captions = match_stores(assigning, store)
        self._image_rows = np.arange(len(self.images))  # of the assigning store
        self._caption_rows = np.arange(len(self.captions))
        if among is not None:
            self._image_rows = np.flatnonzero(np.isin(self.images, among.images))
            self._caption_rows = np.flatnonzero(np.isin(self.captions, among.captions))
            self.images = self.images[self._image_rows]
            self.captions = self.captions[self._caption_rows]
        if settings.method == "filter":
            owners = store.caption_to_image(self.captions)
            absent = self.captions[~np.isin(owners, self.images)]
            if len(absent):
                raise UserError(
                    "method='filter' keeps each caption with its own image, but those of "
                    f"{len(absent):,} of the {len(self.captions):,} captions, such as "
                    f"{store.caption(int(absent[0]))!r}, are not among the images to use: pass "
                    "pairs with them, such as validation/train_pairs.safetensors of the data set, "
                    "or method='sync'"
                )

    def plan(self, title: str, count: int) -> list[Shard]:
        """Return the chunks of one pass."""
        return [
            Shard(f"{title}-{index:05d}", min(self._chunk, count - start), "rows")
            for index, start in enumerate(range(0, count, self._chunk))
        ]

    def sentences_of_captions(self, rows: range, folder: ShardFolder) -> dict[str, Tensor]:
        """Encode captions with the sentence encoder."""
        assert self._encoder is not None
        numbers = self._caption_rows[rows.start : rows.stop]
        texts = [self._assigning.caption(j) for j in numbers.tolist()]
        return {"sentence_feats": self._encoder.encode(texts)}

    def captions_of_images(self, rows: range, folder: ShardFolder) -> dict[str, Tensor]:
        """Find the nearest captions of each image."""
        images = self._global_feats(rows)
        _, nearest_captions = chunked_topk(
            images, self._caption_chunks(), self._settings.num_captions
        )
        return {"captions": nearest_captions.cpu()}

    def images_of_captions(self, rows: range, folder: ShardFolder) -> dict[str, Tensor]:
        """Choose the image of each caption, with its CLIP score and the score of the choice."""
        if self._settings.method == "filter":
            numbers = self._caption_rows[rows.start : rows.stop]
            owners = self._assigning.caption_to_image(numbers)
            cosines = self._cosines(self._assigning, owners, numbers)
            own = torch.from_numpy(self._assigning.clip_scores[numbers])
            images = torch.from_numpy(np.searchsorted(self._image_rows, owners))
            clip_scores = self._clip_scores(rows, images, cosines)
            if self._assigning is self._store and self._settings.score_scale is None:
                clip_scores = own.clone()
            return {"image": images, "clip_score": clip_scores, "score": own}
        captions = self._caption_feats(rows)
        cosines, candidates = chunked_topk(
            captions, self._image_chunks(), self._settings.num_images
        )
        retrieved = self._captions_of(candidates.cpu(), folder)
        sentences = self._sentences(torch.tensor(rows), folder)
        scores = []
        for candidate in retrieved.unbind(1):
            others = self._sentences(candidate.flatten(), folder).unflatten(0, candidate.shape)
            scores.append(torch.einsum("qd,qcd->qc", sentences, others).amax(1))
        # If images retrieve the caption itself, all of them have a cosine of 1, except for rounding
        # errors; the nearest of these images is chosen.
        rounded = torch.stack(scores, 1).round(decimals=_DECIMALS)
        score = rounded.amax(1)
        ranks = torch.arange(rounded.shape[1]).where(rounded == score[:, None], rounded.shape[1])
        best = ranks.amin(1).to(candidates.device)[:, None]
        images = candidates.gather(1, best)[:, 0].cpu()
        clip_scores = self._clip_scores(rows, images, cosines.gather(1, best)[:, 0].cpu())
        return {"image": images, "clip_score": clip_scores, "score": score.cpu()}

    def choose(self, folder: ShardFolder, plan: list[Shard]) -> PairSelection:
        """Select the best pairs, with the indices of the training store."""
        parts = [load_file(folder.path / f"{shard.name}.safetensors") for shard in plan]
        order = np.argsort(self.captions)
        image, clip_score, score = (
            torch.cat([part[key] for part in parts]).numpy()[order]
            for key in ("image", "clip_score", "score")
        )
        image, captions = self.images[image], self.captions[order]
        # Equal scores are ordered by CLIP score, and equal CLIP scores by caption.
        kept = np.lexsort((-clip_score, -score))
        most = self._settings.pairs_per_caption
        if most is not None:
            texts = self._text_numbers()[captions[kept]]
            kept = kept[first_of_texts(texts, image[kept], most)]
        # Rounded down; 0.29 * 100 is 28.999... in floating point.
        kept = kept[: max(1, int(self._settings.keep_share * len(kept) + 1e-9))]
        least = self._settings.min_clip_score
        if least is not None:
            kept = kept[clip_score[kept] >= least]
        if not len(kept):
            raise UserError(
                f"no pair has min_clip_score={least}; the best has {clip_score.max():.3f}"
            )
        kept = np.sort(kept)
        return PairSelection(image[kept], captions[kept], clip_score[kept], score[kept])

    def _text_numbers(self) -> np.ndarray:
        """Return a number for each caption of the training store, the same for equal texts."""
        numbers: dict[str, int] = {}
        texts = (text for i in range(len(self._store)) for text in self._store.captions(i))
        return np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int64)

    def _clip_scores(self, rows: range, images: Tensor, cosines: Tensor) -> Tensor:
        """Compute CLIP scores from features, or from cosines of the assigning store."""
        if self._settings.score_scale is not None:
            return self._settings.score_scale * cosines
        if self._assigning is not self._store:
            captions = self.captions[rows.start : rows.stop]
            cosines = self._cosines(self._store, self.images[images.numpy()], captions)
        return CLIP_SCORE_SCALE * cosines

    @staticmethod
    def _cosines(store: FeatureStore, images: np.ndarray, captions: np.ndarray) -> Tensor:
        return (
            store.read_rows("global_feats", images) * store.read_rows("caption_feats", captions)
        ).sum(1)

    def _captions_of(self, images: Tensor, folder: ShardFolder) -> Tensor:
        """Return the nearest captions (rows, K, c) of each candidate image."""
        parts = [
            load_file(folder.path / f"{shard.name}.safetensors")["captions"]
            for shard in self.plan("captions-of-images", len(self.images))
        ]
        return torch.cat(parts)[images]

    def _sentences(self, captions: Tensor, folder: ShardFolder) -> Tensor:
        """Return the sentence embeddings (n, Ds) of captions, float32, each row of length 1."""
        if self._encoder is None and self.sentences is None:
            numbers = self._caption_rows[captions.numpy()]
            return self._assigning.read_rows("caption_feats", numbers)
        if self.sentences is None:
            # Memory-mapped, so that processes share one copy in the page cache.
            self.sentences = [
                load_file(folder.path / f"{shard.name}.safetensors")["sentence_feats"]
                for shard in self.plan("sentences", len(self.captions))
            ]
        size = len(self.sentences[0])
        found = torch.empty(len(captions), self.sentences[0].shape[1])
        parts = captions // size
        for part in parts.unique().tolist():
            here = parts == part
            found[here] = self.sentences[part][captions[here] - part * size].float()
        return F.normalize(found, dim=-1)

    def _global_feats(self, rows: range) -> Tensor:
        numbers = self._image_rows[rows.start : rows.stop]
        return self._assigning.read_rows("global_feats", numbers).to(self._device)

    def _caption_feats(self, rows: range) -> Tensor:
        numbers = self._caption_rows[rows.start : rows.stop]
        return self._assigning.read_rows("caption_feats", numbers).to(self._device)

    def _image_chunks(self) -> Iterator[Tensor]:
        for start in range(0, len(self.images), self._chunk):
            yield self._global_feats(range(start, start + self._chunk))

    def _caption_chunks(self) -> Iterator[Tensor]:
        for start in range(0, len(self.captions), self._chunk):
            yield self._caption_feats(range(start, start + self._chunk))


def first_of_texts(texts: np.ndarray, images: np.ndarray, count: int) -> np.ndarray:
    """Select the first pairs of each text, with different images.

    Args:
        texts: (P,) int64, number of the text of each pair.
        images: (P,) int64, number of the image of each pair.
        count: Number of pairs per text.

    Returns:
        (P,) bool, whether a pair is among the first ``count`` pairs of its text, of which those
        that repeat text and image are not counted.
    """
    seen: set[tuple[int, int]] = set()
    counts: Counter[int] = Counter()
    chosen = np.zeros(len(texts), bool)
    for row, pair in enumerate(zip(texts.tolist(), images.tolist(), strict=True)):
        text = pair[0]
        if counts[text] < count and pair not in seen:
            seen.add(pair)
            counts[text] += 1
            chosen[row] = True
    return chosen
