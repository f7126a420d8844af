import math

import pytest
import torch
import torch.nn.functional as F

from pcm_plugin.errors import UserError
from pcm_plugin.evaluation.domain_gap import (
    domain_gap,
    feature_moments,
    frechet_distance,
    neighbor_accuracy,
    squared_mmd,
)


def rows(count, seed, shift=0.0, dims=6):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, dims, generator=generator)
    values[:, 0] += shift
    return F.normalize(values, dim=1)


def test_the_frechet_distance_is_its_definition():
    x, y = rows(40, 0).double(), rows(50, 1, 0.5).double()
    # The trace of a root of a matrix is the sum of the roots of its eigenvalues.
    roots = torch.linalg.eigvals(x.T.cov() @ y.T.cov()).real.clamp(min=0).sqrt()
    expected = float((x.mean(0) - y.mean(0)).square().sum())
    expected += float(x.T.cov().trace() + y.T.cov().trace() - 2 * roots.sum())
    assert frechet_distance(x, y) == pytest.approx(expected, abs=1e-9)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    # More features than images: the covariances are singular.
    assert frechet_distance(rows(3, 0), rows(4, 1)) > 0
    assert math.isfinite(frechet_distance(rows(1, 0), rows(4, 1)))


def test_the_mmd_is_its_definition():
    x, y = (F.normalize(r.double(), dim=1) for r in (rows(7, 0), rows(5, 1, 2.0)))

    def mean(a, b, without_equal=False):
        kernels = [
            math.exp(-float((p - q).square().sum()) / 200)
            for i, p in enumerate(a)
            for j, q in enumerate(b)
            if not (without_equal and i == j)
        ]
        return sum(kernels) / len(kernels)

    expected = 1000 * (mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y))
    assert squared_mmd(x, y) == pytest.approx(expected, abs=1e-9)


def test_the_mmd_of_one_distribution_is_around_zero():
    values = [squared_mmd(rows(60, s).double(), rows(20, 100 + s).double()) for s in range(30)]
    assert min(values) < 0 < max(values)
    assert abs(sum(values) / 30) < 0.1 * squared_mmd(rows(60, 0).double(), rows(20, 1, 2).double())


def test_the_nearest_neighbor_tells_sets_apart():
    x, near, far = rows(200, 0), rows(300, 1), rows(100, 2, 50.0)
    assert neighbor_accuracy(x, near) == pytest.approx(50, abs=8)
    assert neighbor_accuracy(x, far) > 98
    # The same images: the nearest of each is its copy in the other set.
    assert neighbor_accuracy(x, x.clone()) < 5
    assert neighbor_accuracy(x, near, seed=1) != neighbor_accuracy(x, near, seed=2)
    assert math.isnan(neighbor_accuracy(x[:1], near))


def test_the_gap_grows_with_the_shift():
    x = 3 * rows(100, 0)
    gaps = [domain_gap(x, rows(80, 1, shift)).figures() for shift in (0.0, 1.0, 4.0)]
    for name in ("mean_distance", "frechet_distance", "mmd", "neighbor_accuracy"):
        values = [gap[name] for gap in gaps]
        assert values == sorted(values), name
        assert values[0] < values[-1], name


def test_similarity_is_the_mean_cosine_of_the_nearest_images():
    x, y = rows(9, 0), rows(8, 1)
    gap = domain_gap(x, 2 * y)
    expected = (x @ y.T).sort(1, descending=True).values[:, :5].mean(1)
    torch.testing.assert_close(gap.similarities, expected)
    expected = (y @ x.T).sort(1, descending=True).values[:, :5].mean(1)
    torch.testing.assert_close(gap.other_similarities, expected)


def test_sets_that_cannot_be_compared_are_refused():
    with pytest.raises(UserError, match=r"got shapes \(0, 6\) and \(3, 6\)"):
        domain_gap(rows(3, 0)[:0], rows(3, 1))
    with pytest.raises(UserError, match=r"got shapes \(3, 6\) and \(3, 4\)"):
        domain_gap(rows(3, 0), rows(3, 1, dims=4))


@pytest.mark.parametrize("size", [1, 4, 100])
def test_moments_do_not_depend_on_the_chunks(size):
    values = 1e3 + torch.randn(23, 4, generator=torch.Generator().manual_seed(0))
    moments = feature_moments(values.split(size))
    torch.testing.assert_close(moments.mean, values.double().mean(0).float())
    torch.testing.assert_close(moments.std, values.double().std(0, correction=0).float())
    assert moments.num_rows == 23
    with pytest.raises(UserError, match="at least one row"):
        feature_moments([values[:0]])
