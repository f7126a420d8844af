import pytest
import torch

from pcm_plugin.models.layers import Dropout, dropout


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_so_many_are_zero_and_the_others_scaled(p):
    x = torch.ones(400, 1001)
    y = dropout(x, p, training=True)
    share = (y == 0).float().mean().item()
    error = (p * (1 - p) / x.numel()) ** 0.5
    assert abs(share - p) < 5 * error
    assert torch.allclose(y[y != 0], torch.tensor(1 / (1 - p)), rtol=1e-3)
    assert abs(y.mean().item() - 1) < 5 * error / (1 - p)
    # Neighbours share a draw, and are independent all the same.
    dropped = (y == 0).float().flatten()
    for distance in (1, 2, 3, 4):
        both = (dropped[:-distance] * dropped[distance:]).mean().item()
        assert abs(both - p * p) < 5 * (p * p / x.numel()) ** 0.5


def test_the_gradient_is_that_of_the_same_mask():
    x = torch.randn(7, 5, requires_grad=True)
    y = dropout(x, 0.4, training=True)
    y.sum().backward()
    assert torch.equal(x.grad == 0, y == 0)
    torch.testing.assert_close(x.grad[y != 0], (y / x)[y != 0].detach())


def test_it_is_seeded_and_leaves_inference_alone():
    x = torch.randn(33)
    module = Dropout(0.5)
    torch.manual_seed(1)
    first = module(x)
    torch.manual_seed(1)
    assert torch.equal(module(x), first)
    assert not torch.equal(module(x), first)
    assert torch.equal(module.eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(Dropout(1e-9)(x), x)
    assert Dropout(1.0)(x).eq(0).all()
    with pytest.raises(ValueError, match=r"p=1\.5"):
        Dropout(1.5)


def test_half_precision_keeps_its_type():
    assert dropout(torch.ones(9, dtype=torch.bfloat16), 0.2, training=True).dtype == torch.bfloat16
