"""Contrastive refinement of features."""

import pytest
import torch
import torch.nn.functional as F

from pcm_plugin.models.functional.contrast import contrastive_gradient, refine_by_contrast


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1)


def everyone(feats, negatives):
    return torch.ones(len(feats), len(negatives), dtype=torch.bool)


@pytest.mark.parametrize("temperature", [0.02, 0.5])
def test_the_gradient_equals_that_of_autograd(temperature):
    feats, texts, negatives = unit(5, 8), unit(5, 8, seed=1), unit(9, 8, seed=2)
    allowed = torch.rand(5, 9, generator=torch.Generator().manual_seed(3)) < 0.7
    moved = feats.clone().requires_grad_()
    expected = []
    for image, text, own in zip(moved, texts, allowed, strict=True):
        logits = torch.cat([text[None], negatives[own]]) @ image / temperature
        expected.append(F.cross_entropy(logits[None], torch.tensor([0])))
    torch.stack(expected).sum().backward()
    loss, gradient = contrastive_gradient(feats, texts, negatives, allowed, temperature)
    torch.testing.assert_close(loss, torch.stack(expected).detach())
    torch.testing.assert_close(gradient, moved.grad, atol=1e-5, rtol=1e-4)


def test_features_move_towards_their_own_text():
    texts, negatives = unit(40, 16, seed=1), unit(200, 16, seed=2)
    # Each image feature is the mean of its own text and another one.
    feats = F.normalize(texts + 1.2 * texts.roll(1, 0), dim=-1)
    others = torch.cat([texts, negatives])

    def rank(images):
        cosines = images @ others.T
        return (cosines > (images * texts).sum(1, keepdim=True)).sum(1).float().mean()

    def loss(images):
        return contrastive_gradient(images, texts, negatives, everyone(images, negatives), 0.05)[0]

    refined = [refine_by_contrast(feats, texts, others, 0.05, steps, 0.1) for steps in (1, 5, 50)]
    losses = [loss(images).mean() for images in (feats, *refined)]
    assert losses == sorted(losses, reverse=True)
    assert rank(feats) > 3
    # The random numbers differ between versions of torch.
    assert rank(refined[-1]) < 0.6
    for images in refined:
        torch.testing.assert_close(images.norm(dim=-1), torch.ones(40))


def test_texts_equal_to_the_own_one_are_not_negatives():
    feats, texts, negatives = unit(6, 8), unit(6, 8, seed=1), unit(30, 8, seed=2)
    alone = refine_by_contrast(feats, texts, negatives, 0.05, 4, 0.1)
    rounded = torch.cat([negatives, texts.half().float()])
    for i in range(6):
        # The texts of the others are negatives, but not the own one.
        others = torch.cat([negatives, texts[[i]].half().float().repeat(3, 1)])
        one = refine_by_contrast(feats[[i]], texts[[i]], others, 0.05, 4, 0.1)
        torch.testing.assert_close(one, alone[[i]])
    assert not torch.allclose(refine_by_contrast(feats, texts, rounded, 0.05, 4, 0.1), alone)


def test_a_step_does_not_depend_on_norms_or_temperature():
    feats, texts, negatives = unit(6, 8), unit(6, 8, seed=1), unit(30, 8, seed=2)
    settings = (0.05, 4, 0.1)
    expected = refine_by_contrast(feats, texts, negatives, *settings)
    scaled = refine_by_contrast(3 * feats, 0.5 * texts, 7 * negatives, *settings)
    torch.testing.assert_close(scaled, expected)
    for temperature in (1e-3, 1.0):
        moved = refine_by_contrast(feats, texts, negatives, temperature, 1, 0.1)
        # At most the difference of two texts of norm 1, times the step size.
        assert (moved * feats).sum(1).min() > (1 - 0.2**2) ** 0.5
    with pytest.raises(ValueError, match="`temperature` must be above 0, got `0`"):
        refine_by_contrast(feats, texts, negatives, 0, 1, 0.1)
