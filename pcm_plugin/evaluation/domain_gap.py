"""Distances between the CLIP embeddings of two sets of images, such as synthetic images and photos.

Shapes: n images of the first set, m of the second, D features. All features are L2-normalized.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.errors import UserError

MMD_SIGMA = 10.0
"""Bandwidth of the kernel (CMMD)."""
MMD_SCALE = 1000.0
"""Factor that brings the value to the order of 1 (CMMD)."""
NEIGHBORS = 5
"""Neighbors in the other set whose mean cosine is the similarity of an image."""
_CHUNK = 2048


class DomainGap(NamedTuple):
    """Distances between two sets of images.

    Attributes:
        mean_distance: Euclidean distance of the two mean features, from 0 to 2. It sees a shift of
            the whole set, but no difference in variety.
        frechet_distance: Fréchet distance of two Gaussians with the means and covariances of the
            sets (Heusel et al. 2017), of CLIP features in place of Inception's, so it cannot be
            compared with published FIDs. It also sees differences in variety. It is too large for
            small sets: with fewer images than features, compare only sets of equal sizes.
        mmd: CMMD (Jayasumana et al. 2024): 1000 times the squared maximum mean discrepancy with a
            Gaussian kernel of bandwidth 10. The estimate is unbiased: around 0, possibly below, for
            sets of one distribution, whatever their sizes. NaN for a single image.
        neighbor_accuracy: Percentage of images whose nearest neighbor among all others is of their
            own set, with equally many images of both sets (two-sample test with 1-NN, Lopez-Paz &
            Oquab 2017): 50 if the sets cannot be told apart, 100 if each is on its own, less than
            50 if sets contain nearly the same images. NaN for a single image.
        similarities: (n,), mean cosine of each image of the first set with its 5 nearest images of
            the second.
        other_similarities: (m,), the same for the images of the second set.
    """

    mean_distance: float
    frechet_distance: float
    mmd: float
    neighbor_accuracy: float
    similarities: Tensor
    other_similarities: Tensor

    def figures(self) -> dict[str, float]:
        """Return the numbers by name, without the similarities of images."""
        return dict(list(self._asdict().items())[:4])


class Moments(NamedTuple):
    """Mean and standard deviation of each feature.

    Attributes:
        mean: (D,) float32.
        std: (D,) float32, of the population.
        num_rows: Number of rows.
    """

    mean: Tensor
    std: Tensor
    num_rows: int


@torch.inference_mode()
def domain_gap(feats: Tensor, others: Tensor, seed: int = 0) -> DomainGap:
    """Measure the gap between two sets of images.

    Memory is that of both sets and 2,048 rows of cosines; time grows with (n + m)^2.

    Args:
        feats: (n, D), features of the first set, of any norm except 0.
        others: (m, D), features of the second set.
        seed: Seed of the choice of images if the sets differ in size, for ``neighbor_accuracy``.

    Raises:
        UserError: If a set is empty or the widths differ.
    """
    if not len(feats) or not len(others) or feats.shape[1] != others.shape[1]:
        raise UserError(
            "both sets must have at least one image and features of one CLIP, got shapes "
            f"{tuple(feats.shape)} and {tuple(others.shape)}"
        )
    x, y = (F.normalize(rows.double(), dim=-1) for rows in (feats, others))
    return DomainGap(
        float((x.mean(0) - y.mean(0)).norm()),
        frechet_distance(x, y),
        squared_mmd(x, y),
        neighbor_accuracy(x, y, seed),
        _similarities(x, y),
        _similarities(y, x),
    )


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Compute the squared Fréchet distance of two Gaussians fitted to (n, D) and (m, D) rows.

    ``|mean_x - mean_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2))`` with sample covariances, as in FID.
    The covariance of a single row is 0.
    """
    means = [rows.double().mean(0) for rows in (x, y)]
    covariances = [
        (rows.double() - mean).T @ (rows.double() - mean) / max(1, len(rows) - 1)
        for rows, mean in zip((x, y), means, strict=True)
    ]
    values, vectors = torch.linalg.eigh(covariances[0])
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T  # C_x^(1/2)
    # C_x C_y has the eigenvalues of the symmetric matrix C_x^(1/2) C_y C_x^(1/2).
    product = torch.linalg.eigvalsh(root @ covariances[1] @ root).clamp(min=0).sqrt().sum()
    traces = sum(matrix.trace() for matrix in covariances)
    return max(0.0, float((means[0] - means[1]).square().sum() + traces - 2 * product))


def squared_mmd(x: Tensor, y: Tensor) -> float:
    """Compute 1000 times the unbiased squared MMD of (n, D) and (m, D) rows of norm 1; see CMMD."""
    if min(len(x), len(y)) < 2:
        return math.nan
    # Without the pairs of a row with itself, whose kernel is 1.
    within = [
        (_kernel_sum(rows, rows) - len(rows)) / (len(rows) * (len(rows) - 1)) for rows in (x, y)
    ]
    between = _kernel_sum(x, y) / (len(x) * len(y))
    return MMD_SCALE * (within[0] + within[1] - 2 * between)


def neighbor_accuracy(x: Tensor, y: Tensor, seed: int = 0) -> float:
    """Compute the percentage of rows of norm 1 whose nearest other row is of their own set."""
    count = min(len(x), len(y))
    if count < 2:
        return math.nan
    generator = torch.Generator().manual_seed(seed)
    chosen = [rows[torch.randperm(len(rows), generator=generator)[:count]] for rows in (x, y)]
    rows = torch.cat(chosen)  # (2 count, D)
    own = 0
    for start in range(0, len(rows), _CHUNK):
        numbers = torch.arange(start, min(start + _CHUNK, len(rows)))
        cosines = rows[numbers] @ rows.T
        cosines[torch.arange(len(numbers)), numbers] = -math.inf
        own += int(((cosines.argmax(1) < count) == (numbers < count)).sum())
    return 100 * own / len(rows)


def feature_moments(chunks: Iterable[Tensor]) -> Moments:
    """Compute mean and standard deviation of each feature, in one pass over chunks.

    They are the statistics of the shift of text features toward image features (TOMCap, CVPR
    2026): ``(text - text_mean) * image_std / text_std + image_mean``.

    Args:
        chunks: (k, D) each.

    Raises:
        UserError: If there are no rows.
    """
    count, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for chunk in chunks:
        rows = chunk.double()
        if not len(rows):
            continue
        # Merge of two sets (Chan et al. 1979), which does not lose digits as sums of squares do.
        own = rows.mean(0)
        total = count + len(rows)
        delta = own - mean
        squares = squares + (rows - own).square().sum(0)
        squares = squares + delta.square() * (count * len(rows) / total)
        mean = mean + delta * (len(rows) / total)
        count = total
    if not count:
        raise UserError("`chunks` must have at least one row, got none")
    return Moments(mean.float(), (squares / count).sqrt().float(), count)


def _kernel_sum(x: Tensor, y: Tensor) -> float:
    """Return the sum of ``exp(-|x_i - y_j|^2 / (2 sigma^2))`` over all pairs of rows of norm 1."""
    total = 0.0
    for start in range(0, len(x), _CHUNK):
        squared = (2 - 2 * x[start : start + _CHUNK] @ y.T).clamp(min=0)
        total += float((-squared / (2 * MMD_SIGMA**2)).exp().sum())
    return total


def _similarities(x: Tensor, y: Tensor) -> Tensor:
    """Return the mean cosine of each row of x with its nearest rows of y."""
    count = min(NEIGHBORS, len(y))
    parts = [
        (x[start : start + _CHUNK] @ y.T).topk(count, dim=1).values.mean(1)
        for start in range(0, len(x), _CHUNK)
    ]
    return torch.cat(parts).float()
