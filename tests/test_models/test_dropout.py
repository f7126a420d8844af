import pytest
import torch

from pcm_plugin.models.layers import Dropout
from pcm_plugin.models.layers.dropout import dropout, relu_dropout


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_dropout_drops_with_probability_p_and_scales_the_others(p):
    # Each call draws one of 256 thresholds, so p is only met over several calls.
    x = torch.ones(400, 1001)
    y = torch.stack([dropout(part, p, training=True) for part in x])
    share = (y == 0).float().mean().item()
    error = (p * (1 - p) / x.numel()) ** 0.5
    assert abs(share - p) < 5 * error
    assert torch.allclose(y[y != 0], torch.tensor(1 / (1 - p)), rtol=1e-3)
    assert abs(y.mean().item() - 1) < 5 * error / (1 - p)
    # Eight neighbors share one draw of the generator, but are independent.
    dropped = (y == 0).float().flatten()
    for distance in (1, 2, 3, 4, 7, 8):
        both = (dropped[:-distance] * dropped[distance:]).mean().item()
        assert abs(both - p * p) < 5 * (p * p / x.numel()) ** 0.5


def test_backward_uses_the_mask_of_forward():
    x = torch.randn(7, 5, requires_grad=True)
    y = dropout(x, 0.4, training=True)
    y.sum().backward()
    assert torch.equal(x.grad == 0, y == 0)
    torch.testing.assert_close(x.grad[y != 0], (y / x)[y != 0].detach())


def test_dropout_is_seeded_and_inactive_in_eval_mode():
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
    with pytest.raises(ValueError, match=r"must be from 0 to 1, got `1\.5`"):
        Dropout(1.5)


def test_dropout_keeps_half_precision():
    assert dropout(torch.ones(9, dtype=torch.bfloat16), 0.2, training=True).dtype == torch.bfloat16


def test_relu_dropout_equals_dropout_after_relu():
    x = torch.randn(40, 1001, requires_grad=True)
    torch.manual_seed(3)
    y = relu_dropout(x, 0.3, training=True)
    torch.manual_seed(3)
    other = x.detach().clone().requires_grad_()
    expected = dropout(other.relu(), 0.3, training=True)
    torch.testing.assert_close(y, expected)
    weights = torch.randn_like(y)
    (y * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x.grad, other.grad)
    assert torch.equal(relu_dropout(x, 0.3, training=False), x.relu())
