import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pcm_plugin.models.layers import (
    CrossAttention,
    PackedSequence,
    SelfAttention,
    additive_mask,
    prepack_linears,
    use_cpu_kernels,
)
from pcm_plugin.models.layers.transformer import attention

B, H, D = 3, 2, 4


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def make_heads(length, batch=B):
    return torch.randn(batch, H, length, D)


@pytest.mark.parametrize("queries", [1, 8, 9])
@pytest.mark.parametrize("form", ["none", "bool", "additive", "causal"])
def test_attention_equals_that_of_pytorch_for_few_and_many_queries(queries, form):
    causal = form == "causal"
    q, k, v = make_heads(queries), make_heads(20), make_heads(20)
    mask = torch.rand(B, 1, 1, 20) > 0.4
    mask[..., 0] = True
    expected = F.scaled_dot_product_attention(
        q, k, v, mask if form in ("bool", "additive") else None, is_causal=causal
    )
    given = {"bool": mask, "additive": additive_mask(mask)}.get(form)
    torch.testing.assert_close(attention(q, k, v, given, causal, 0.0), expected)


def test_attention_dropout_keeps_the_mean_and_the_mask():
    q, k = make_heads(3), make_heads(5)
    # With these values the result is the attention weights.
    v = torch.eye(5).expand(B, H, 5, 5)
    mask = torch.tensor([True, True, True, False, True]).view(1, 1, 1, 5)
    expected = F.scaled_dot_product_attention(q, k, v, mask)
    several = torch.stack([attention(q, k, v, mask, False, 0.3) for _ in range(4000)])
    kept = several != 0
    assert not kept[..., 3].any()
    torch.testing.assert_close(several[kept], (expected / 0.7).expand_as(several)[kept])
    assert kept[..., [0, 1, 2, 4]].float().mean().item() == pytest.approx(0.7, abs=0.005)


@pytest.mark.parametrize("form", ["none", "bool", "causal"])
def test_attention_with_dropout_has_the_right_gradient(form):
    heads = [torch.randn(B, 6, H, D, dtype=torch.float64).transpose(1, 2) for _ in range(3)]
    heads = [part.requires_grad_() for part in heads]
    mask = torch.rand(B, 1, 1, 6) > 0.4
    mask[..., 0] = True

    def run(*parts):
        torch.manual_seed(0)
        return attention(*parts, mask if form == "bool" else None, form == "causal", 0.3)

    assert torch.autograd.gradcheck(run, heads)


def test_all_attention_weights_can_be_dropped():
    assert not attention(make_heads(3), make_heads(5), make_heads(5), None, False, 1.0).any()


def test_attention_with_dropout_under_autocast():
    block = SelfAttention(8, 2, 0.3, 0.1, 1e-12)
    x = torch.randn(2, 5, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        block(x, causal=True).sum().backward()
    assert all(p.grad.isfinite().all() for p in [x, *block.parameters()])


def test_cpu_kernels_are_used_on_the_cpu_except_while_compiling():
    assert use_cpu_kernels(torch.empty(1))
    assert not use_cpu_kernels(torch.empty(1, device="meta"))
    answers = []

    @torch.compile(backend="eager")
    def compiled(x):
        answers.append(use_cpu_kernels(x))
        return x + 1

    compiled(torch.zeros(1))
    assert answers == [False]


def test_blocks_run_without_the_cpu_kernels():
    block = SelfAttention(8, 2, 0.3, 0.1, 1e-12).to("meta")
    assert block(torch.empty(2, 5, 8, device="meta"), causal=True).shape == (2, 5, 8)


def test_packing_and_padding_are_inverse():
    lengths = torch.tensor([2, 0, 4])
    packing = PackedSequence.from_lengths(lengths, 5, torch.device("cpu"))
    packed = torch.randn(6, D, requires_grad=True)
    padded = packing.pad(packed)
    assert padded.shape == (3, 5, D)
    assert torch.equal(packing.pack(padded), packed)
    is_word = torch.arange(5) < lengths.unsqueeze(1)
    assert torch.equal(padded[is_word], packed)
    assert not padded[~is_word].any()
    packing.pack(padded * 3).sum().backward()
    assert packed.grad.eq(3).all()


def test_attention_is_equal_for_packed_and_padded_sequences():
    lengths, longest = torch.tensor([2, 5, 3]), 5
    packing = PackedSequence.from_lengths(lengths, longest, torch.device("cpu"))
    words, image = torch.randn(3, longest, 8), torch.randn(3, 7, 8)
    self_attn = SelfAttention(8, 2, 0.0, 0.0, 1e-12).eval()
    cross_attn = CrossAttention(8, 2, 0.0, 0.0, 1e-12).eval()
    keys_values = cross_attn.project_kv(image)
    padded = cross_attn(self_attn(words, causal=True), *keys_values)
    packed = cross_attn(
        self_attn(packing.pack(words), causal=True, packing=packing), *keys_values, packing=packing
    )
    torch.testing.assert_close(packed, packing.pack(padded))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.LayerNorm(16)) for _ in range(2)
        )
        self.last = nn.Linear(16, 50, bias=False)
        self.nothing = None

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.last(x)


@pytest.mark.parametrize("shape", [(4, 8, 16), (32, 16), (5, 16), (1, 1, 16)])
def test_prepacked_linears_compute_the_same(shape):
    net, x = Net().eval(), torch.randn(shape)
    with torch.no_grad():
        expected = net(x)
        prepacked = prepack_linears(net, 32)
        torch.testing.assert_close(prepacked(x), expected)
        assert torch.equal(net(x), expected)
    if torch.backends.mkl.is_available():
        assert prepacked is not net
        assert not any(isinstance(part, nn.Linear) for part in prepacked.children())


def test_linears_are_not_prepacked_with_gradients_or_other_dtypes():
    net = Net()
    assert prepack_linears(net, 8) is net
    with torch.no_grad():
        assert prepack_linears(net.double(), 8).last is net.last
        with torch.autocast("cpu", torch.bfloat16):
            assert prepack_linears(net.float(), 8) is net


def test_additive_mask_is_zero_or_minus_infinity():
    found = additive_mask(torch.tensor([True, False]))
    assert found.tolist() == [0.0, -math.inf]
