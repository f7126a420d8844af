import itertools

import pytest
import torch
import torch.nn.functional as F

from pcm_plugin.models.functional.beam_search import beam_search, grouped_topk
from pcm_plugin.models.functional.concept_retrieval import inject_noise, retrieve_concepts
from pcm_plugin.models.functional.mix import (
    gather_slots,
    pack_slots,
    replace_patches,
    select_patches_by_pairs,
)
from pcm_plugin.models.functional.patch_affinity import patch_concept_affinity, text_map
from pcm_plugin.models.functional.rank_sum import order_by_rank_sum, rank_sums


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_rank_sums_equal_those_of_a_brute_force():
    for _ in range(20):
        # Few values, so that there are many ties.
        scores, values = torch.randint(4, (3, 6)).float(), torch.randint(3, (6,)).float()
        sums = [sum(int((row > row[i]).sum()) for row in scores) for i in range(6)]
        assert rank_sums(scores).tolist() == sums
        expected = sorted(range(6), key=lambda i: (sums[i], -values[i]))
        assert order_by_rank_sum(scores, values).tolist() == expected


def test_only_the_order_of_scores_counts_for_their_ranks():
    scores = torch.tensor([[-1.0, -1.1, -50.0], [0.2, 0.31, 0.3]])
    assert rank_sums(scores).tolist() == [2, 1, 3]
    assert rank_sums(torch.stack([scores[0].exp(), 1000 * scores[1]])).tolist() == [2, 1, 3]


def test_retrieves_the_concepts_with_the_nearest_texts():
    concepts = F.normalize(torch.randn(9, 6), dim=-1)
    feats = torch.stack([concepts[4], -concepts[7]])
    ids, probs, vectors = retrieve_concepts(3 * feats, concepts, 3, 0.0, 0.5)
    cosine = F.cosine_similarity(feats[:, None], concepts[None], dim=-1)
    assert ids[0, 0] == 4
    assert torch.equal(ids, cosine.topk(3).indices)
    torch.testing.assert_close(probs, (cosine / 0.5).softmax(-1).gather(1, ids))
    assert torch.equal(vectors, concepts[ids])


def test_concepts_not_above_the_threshold_are_masked_but_listed():
    concepts, feats = torch.eye(4), torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    _, probs, _ = retrieve_concepts(feats, concepts, 3, 0.0, 1.0)
    ids, same, vectors = retrieve_concepts(feats, concepts, 3, float(probs[0, 1]), 1.0)
    assert ids.tolist() == [[0, 1, 2]]
    assert torch.equal(same, probs)
    assert vectors.norm(dim=-1).tolist() == [[1.0, 0.0, 0.0]]
    # Its zero vector has affinity 0 with all patches, and receives its share of the softmax.
    affinity = patch_concept_affinity(torch.randn(1, 5, 4), vectors)
    assert affinity[0, :, 1:].abs().max() == 0
    text = text_map(affinity, vectors, 0.5)
    share = (affinity / 0.5).softmax(-1)[..., 0]
    torch.testing.assert_close(text[..., 0], share)


def test_masked_concepts_are_selected_if_all_other_affinities_are_negative():
    affinity = torch.tensor([[[-0.5, 0.0], [-0.1, 0.0], [-0.9, 0.0]]])
    assert select_patches_by_pairs(affinity, 3, 0.01).all()
    affinity = torch.tensor([[[0.5, 0.0], [0.1, 0.0], [-0.9, 0.0]]])
    assert select_patches_by_pairs(affinity, 2, 0.01).tolist() == [[True, True, False]]


def test_pairs_of_one_patch_select_one_patch():
    affinity = torch.zeros(2, 4, 3)
    affinity[0, 2] = torch.tensor([0.3, 0.2, 0.1])
    affinity[1, 1, 0], affinity[1, 3, 2], affinity[1, 3, 0] = 0.3, 0.2, 0.1
    selected = select_patches_by_pairs(affinity, 3, 0.01)
    assert selected.int().tolist() == [[0, 0, 1, 0], [0, 1, 0, 1]]
    assert pack_slots(selected, 3).tolist() == [[2, -1, -1], [1, 3, -1]]


def test_gather_and_replace_are_inverse():
    selected = torch.rand(5, 8) < 0.4
    values, texts = torch.randn(5, 8, 3), torch.randn(5, 8, 3)
    slots = pack_slots(selected, 8)
    mixed = replace_patches(values, gather_slots(texts, slots), selected)
    torch.testing.assert_close(mixed, torch.where(selected.unsqueeze(-1), texts, values))


def test_noise_has_the_given_variance_and_norm_one():
    feats = F.normalize(torch.randn(1, 50), dim=-1).expand(4000, 50)
    assert torch.equal(inject_noise(feats, 0.0), F.normalize(feats, dim=-1))
    noisy = inject_noise(5 * feats, 0.016)
    torch.testing.assert_close(noisy.norm(dim=-1), torch.ones(4000))
    # |x + n| = sqrt(1 + 50 * 0.016) on average, so the cosine is about its inverse.
    cosine = (noisy * feats).sum(-1).mean()
    assert float(cosine) == pytest.approx((1 + 50 * 0.016) ** -0.5, abs=0.01)


class TableDecoder:
    """Decoder whose logits are a table over image, position and last word."""

    def __init__(self, batch_size=3, max_len=4, vocab_size=4):
        self.table = torch.randn(batch_size, max_len, vocab_size, vocab_size) * 2
        self.t = -1

    def __call__(self, words, parents):
        self.t += 1
        return self.table[torch.arange(len(words)).unsqueeze(1), self.t, words]

    def score(self, image, sentence):
        total, last = 0.0, 0
        for t, word in enumerate(sentence):
            total += float(self.table[image, t, last].log_softmax(-1)[word])
            last = word
        return total


def all_sentences(max_len, vocab_size):
    for length in range(max_len):
        for words in itertools.product(range(1, vocab_size), repeat=length):
            yield (*words, 0)
    yield from itertools.product(range(1, vocab_size), repeat=max_len)


def test_a_wide_beam_finds_the_best_of_all_sequences():
    decoder = TableDecoder(vocab_size=20, max_len=2)
    found = beam_search(decoder, 3, 20, 2, num_return=5)
    for image in range(3):
        ranked = sorted(all_sentences(2, 20), key=lambda words: -decoder.score(image, words))
        best = [list(words) + [0] * (2 - len(words)) for words in ranked[:5]]
        assert found.ids[image].tolist() == best
        scores = torch.tensor([decoder.score(image, words) for words in ranked[:5]])
        torch.testing.assert_close(found.scores[image], scores)


@pytest.mark.parametrize("beam_size", [1, 2, 3])
def test_scores_are_sums_of_log_probabilities(beam_size):
    decoder = TableDecoder(max_len=6)
    found = beam_search(decoder, 3, beam_size, 6)
    torch.testing.assert_close(found.log_probs.sum(-1), found.scores)
    for image, ids in enumerate(found.ids[:, 0].tolist()):
        end = ids.index(0) + 1 if 0 in ids else len(ids)
        assert float(found.scores[image]) == pytest.approx(decoder.score(image, ids[:end]), 1e-5)
        assert not any(ids[end:])
        assert not found.log_probs[image, 0, end:].any()


def test_early_stopping_does_not_change_the_result():
    """With ``num_return`` equal to the beam size, the search continues until all have finished."""
    for seed in range(20):
        torch.manual_seed(seed)
        decoder = TableDecoder(batch_size=1, max_len=7, vocab_size=5)
        early = beam_search(decoder, 1, 3, 7)
        steps, decoder.t = decoder.t, -1
        full = beam_search(decoder, 1, 3, 7, num_return=3)
        assert torch.equal(early.ids[:, 0], full.ids[:, 0])
        assert steps <= decoder.t
        if steps < decoder.t:
            return
    raise AssertionError("no search stopped early: the test shows nothing")


@pytest.mark.parametrize("length_penalty", [0.6, 1.0, -0.5])
def test_a_wide_beam_finds_the_best_sequences_with_a_length_penalty(length_penalty):
    decoder = TableDecoder(vocab_size=20, max_len=2)
    found = beam_search(decoder, 3, 20, 2, num_return=5, length_penalty=length_penalty)
    changed = False
    for image in range(3):

        def score(words, image=image):
            return decoder.score(image, words) / len(words) ** length_penalty

        ranked = sorted(all_sentences(2, 20), key=score, reverse=True)
        best = [list(words) + [0] * (2 - len(words)) for words in ranked[:5]]
        assert found.ids[image].tolist() == best
        torch.testing.assert_close(found.scores[image], torch.tensor([*map(score, ranked[:5])]))
        assert found.lengths[image].tolist() == [len(words) for words in ranked[:5]]
        changed |= ranked != sorted(
            all_sentences(2, 20), key=lambda words: decoder.score(image, words), reverse=True
        )
    assert changed


def published_search(decoder, image, beam_size, max_len, stops):
    """Beam search of ViECap for one image in plain Python: beams are ranked by the mean."""
    beams = [((), 0.0)]
    for t in range(max_len):
        successors = []
        for words, total in beams:
            if words and words[-1] in stops:
                successors.append((words, total))
                continue
            last = words[-1] if words else 0
            log_probs = decoder.table[image, t, last].log_softmax(-1).tolist()
            successors += [((*words, w), total + log_prob) for w, log_prob in enumerate(log_probs)]
        beams = sorted(successors, key=lambda b: b[1] / len(b[0]), reverse=True)[:beam_size]
        if all(words[-1] in stops for words, _ in beams):
            break
    return beams


def test_length_penalty_one_equals_the_search_of_viecap():
    differs = early = 0
    for seed in range(30):
        torch.manual_seed(seed)
        decoder = TableDecoder(batch_size=2, max_len=7, vocab_size=6)
        found = beam_search(decoder, 2, 3, 7, eos_id=(5, 2), length_penalty=1.0)
        early += decoder.t < 6
        decoder.t = -1
        plain = beam_search(decoder, 2, 3, 7, eos_id=(5, 2))
        for image in range(2):
            words, total = published_search(decoder, image, 3, 7, (5, 2))[0]
            length = int(found.lengths[image, 0])
            assert found.ids[image, 0].tolist() == [*words, *[5] * (7 - len(words))]
            assert length == len(words)
            assert float(found.scores[image, 0]) == pytest.approx(total / length, rel=1e-4)
        differs += not torch.equal(found.ids, plain.ids)
    assert differs > 5
    assert early > 5


def test_beam_size_and_num_return_must_fit():
    with pytest.raises(ValueError, match="must be at most the 4 words of the vocabulary, got `5`"):
        beam_search(TableDecoder(), 3, 5, 4)
    with pytest.raises(ValueError, match="`num_return` must be from 1 to beam_size=1, got `2`"):
        beam_search(TableDecoder(), 3, 1, 4, num_return=2)


@pytest.mark.parametrize("size", [1, 2, 7, 100, 101, 1009])
@pytest.mark.parametrize("count", [1, 3, 12])
def test_grouped_topk_equals_topk(size, count):
    count = min(count, size)
    log_probs = torch.randn(4, 3, size).log_softmax(-1)
    found, words = grouped_topk(log_probs, count)
    expected = log_probs.topk(count, dim=-1)
    assert torch.equal(found, expected.values)
    assert torch.equal(words, expected.indices)
