import multiprocessing

import pytest
import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from pcm_plugin.models import CLIPWeightedCELoss

GAMMA_TYPES = ["batch", "word", "sent", "none"]


def make_batch(batch_size=6, length=7, vocab_size=11):
    torch.manual_seed(0)
    logits = torch.randn(batch_size, length, vocab_size)
    targets = torch.randint(0, vocab_size, (batch_size, length))
    lengths = torch.tensor([7, 3, 5, 1, 6, 2])[:batch_size]
    targets[torch.arange(length) >= lengths.unsqueeze(1)] = -1
    clip_scores = torch.tensor([0.9, 0.5, -0.2, 1.3, 0.7, 0.6])[:batch_size]
    return logits, targets, clip_scores


def table_form(logits, targets, clip_scores, gamma_type, smoothing, w, gamma):
    """Loss by the formulas, with the (n, n) matrix of losses times factors."""
    valid = targets >= 0
    sentences = valid.nonzero()[:, 0]
    target = targets[valid]
    log_probs = logits[valid].log_softmax(-1)
    wanted = torch.full_like(log_probs, smoothing / (log_probs.shape[1] - 1))
    wanted.scatter_(1, target.unsqueeze(1), 1 - smoothing)
    losses = F.kl_div(log_probs, wanted, reduction="none").sum(1)
    losses = losses * (clip_scores / 2.5 * w).clamp(0, 1)[sentences]
    factors = (1 - log_probs.exp().gather(1, target.unsqueeze(1)).squeeze(1)) ** gamma
    table = losses.unsqueeze(0) * factors.unsqueeze(1)
    if gamma_type == "batch":
        return table.mean()
    if gamma_type == "sent":
        return table[sentences.unsqueeze(0) == sentences.unsqueeze(1)].mean()
    return (losses * factors).mean() if gamma_type == "word" else losses.mean()


@pytest.mark.parametrize("gamma_type", GAMMA_TYPES)
@pytest.mark.parametrize(("smoothing", "w", "gamma"), [(0.1, 2.5, 2), (0.3, 4.0, 0.5), (0.0, 1, 3)])
def test_loss_equals_the_formulas(gamma_type, smoothing, w, gamma):
    logits, targets, clip_scores = make_batch()
    loss = CLIPWeightedCELoss(smoothing, w, gamma, gamma_type)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value = loss(ours, targets, clip_scores)
    expected = table_form(theirs, targets, clip_scores, gamma_type, smoothing, w, gamma)
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_plain_settings_give_cross_entropy():
    logits, targets, _ = make_batch()
    loss = CLIPWeightedCELoss(0.0, gamma_type="none", use_clip_weight=False)
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
    torch.testing.assert_close(loss(logits, targets), expected)


def test_gamma_zero_disables_the_factor():
    batch = make_batch()
    off = CLIPWeightedCELoss(gamma=0)(*batch)
    assert torch.equal(off, CLIPWeightedCELoss(gamma_type="none")(*batch))


def test_padding_has_no_effect():
    logits, targets, clip_scores = make_batch()
    changed = torch.where((targets >= 0).unsqueeze(-1), logits, 100.0)
    loss = CLIPWeightedCELoss()
    assert torch.equal(loss(logits, targets, clip_scores), loss(changed, targets, clip_scores))


@pytest.mark.parametrize("gamma", [0.5, 2])
def test_a_certain_word_has_a_finite_gradient(gamma):
    logits = torch.tensor([[[200.0, 0.0, 0.0]]], requires_grad=True)
    loss = CLIPWeightedCELoss(gamma=gamma, gamma_type="word", use_clip_weight=False)
    loss(logits, torch.zeros(1, 1, dtype=torch.long)).backward()
    assert logits.grad.isfinite().all()


def test_half_precision_logits_give_a_float32_loss():
    logits, targets, clip_scores = make_batch()
    loss = CLIPWeightedCELoss()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(logits.bfloat16(), targets, clip_scores)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(logits.bfloat16().float(), targets, clip_scores))


def test_errors_name_the_value_and_the_fix():
    with pytest.raises(ValueError, match=r"`gamma_type` must be one of .* got 'all'"):
        CLIPWeightedCELoss(gamma_type="all")
    with pytest.raises(
        ValueError, match="`label_smoothing` must be at least 0 and below 1, got `1`"
    ):
        CLIPWeightedCELoss(label_smoothing=1)
    logits, targets, _ = make_batch()
    with pytest.raises(ValueError, match="to every data sample, or set use_clip_weight=False"):
        CLIPWeightedCELoss()(logits, targets)


def _backward(model, gamma_type, share):
    logits, targets, clip_scores = (part[share] for part in make_batch())
    loss = CLIPWeightedCELoss(gamma_type=gamma_type)
    model.zero_grad()
    value = loss(model(logits), targets, clip_scores)
    value.backward()
    weight = next(model.parameters())
    return value.item(), weight.grad.clone()


def _make_model():
    torch.manual_seed(1)
    return torch.nn.Linear(11, 11)


def _train_on_share(rank, rendezvous, shares):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2
    )
    model = DistributedDataParallel(_make_model())
    found = [_backward(model, kind, shares[rank]) for kind in GAMMA_TYPES]
    # A process group that outlives that of its peer, or is held by a DDP module, may hang.
    del model
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    return [(value, gradient.tolist()) for value, gradient in found]


def test_two_ranks_take_the_step_of_one_process(tmp_path):
    # The ranks have different numbers of words, so a mean of means would be wrong.
    shares = [[0, 2, 4], [1, 3, 5]]
    with multiprocessing.get_context("forkserver").Pool(2) as pool:
        jobs = [(rank, str(tmp_path / "rendezvous"), shares) for rank in range(2)]
        ranks = pool.starmap(_train_on_share, jobs, chunksize=1)
    for i, kind in enumerate(GAMMA_TYPES):
        value, gradient = _backward(_make_model(), kind, slice(None))
        for results in ranks:
            assert results[i][0] == pytest.approx(value, rel=1e-6)
            torch.testing.assert_close(torch.tensor(results[i][1]), gradient)
