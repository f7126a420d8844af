"""Projection onto a text memory, and its use in DeCap."""

import pytest
import torch
import torch.nn.functional as F

from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.pair_selection import PairSelection, load_pairs
from pcm_plugin.models import GlobalPrefix, ObjectPrefix
from pcm_plugin.models.functional.text_memory import project_onto_text_memory
from tests.builders import build_store


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1)


@pytest.mark.parametrize("chunk", [1, 7, 50, 1000])
@pytest.mark.parametrize("temperature", [0.01, 1.0])
def test_chunks_give_the_softmax_over_the_whole_memory(chunk, temperature):
    feats, memory = 3 * unit(4, 8), unit(50, 8, seed=1)
    weights = (F.normalize(feats, dim=-1) @ memory.T / temperature).softmax(-1)
    expected = F.normalize(weights @ memory, dim=-1)
    found = project_onto_text_memory(feats, memory.split(chunk), temperature)
    torch.testing.assert_close(found, expected)


def test_a_low_temperature_selects_the_nearest_text_without_overflow():
    memory = unit(30, 8)
    feats = F.normalize(memory[[4, 9]] + 0.05 * unit(2, 8, seed=2), dim=-1)
    found = project_onto_text_memory(feats, memory.split(4), 1e-4)
    torch.testing.assert_close(found, memory[[4, 9]])
    half = project_onto_text_memory(feats, memory.half().split(4), 1e-4)
    torch.testing.assert_close(half, memory[[4, 9]], atol=1e-3, rtol=1e-3)


def test_errors_name_the_value():
    with pytest.raises(ValueError, match="`temperature` must be above 0, got `0`"):
        project_onto_text_memory(unit(1, 4), [unit(2, 4)], 0)
    for empty in ([], unit(0, 4).split(8)):
        with pytest.raises(ValueError, match="memory must not be empty"):
            project_onto_text_memory(unit(1, 4), empty, 0.1)


def test_decap_projects_images_but_not_training_texts(tmp_path):
    truth = build_store(tmp_path / "store", [["a dog", "the dog"], ["a cat"]])
    settings = dict(clip_dim=5, embed_dims=6, noise_var=0.0, dropout=0.0)
    torch.manual_seed(0)
    decap = GlobalPrefix(text_memory=tmp_path / "store", text_memory_temperature=0.1, **settings)
    plain = GlobalPrefix(**settings)
    plain.load_state_dict(decap.state_dict())  # the memory is no part of it
    feats = unit(3, 5)
    assert torch.equal(decap.train()(None, feats).tokens, plain.train()(None, feats).tokens)
    seen = decap.eval()(None, feats).tokens
    memory = truth["caption_feats"].half().float()
    projected = project_onto_text_memory(feats, [memory], 0.1)
    torch.testing.assert_close(seen, plain.eval()(None, projected).tokens)
    assert not torch.allclose(seen, plain(None, feats).tokens)


def test_a_text_memory_of_another_clip_raises_an_error(tmp_path):
    build_store(tmp_path / "store", [["a dog"]])
    with pytest.raises(
        ValueError, match=r"`text_memory` must be \(M, clip_dim=4\) .* got `\(1, 5\)`"
    ):
        GlobalPrefix(clip_dim=4, embed_dims=6, text_memory=tmp_path / "store")
    build_store(tmp_path / "none", [[]])
    with pytest.raises(ValueError, match="at least one text"):
        GlobalPrefix(clip_dim=5, embed_dims=6, text_memory=tmp_path / "none")


def test_the_text_memory_can_be_that_of_some_pairs(tmp_path):
    captions = [["a", "b"], ["c"], ["d"]]
    expected = build_store(tmp_path / "store", captions, clip_dim=4)["caption_feats"]
    store = FeatureStore(tmp_path / "store")
    pairs = load_pairs(store)
    some = PairSelection(*(values[[1, 3]] for values in pairs))
    some.to_file(tmp_path / "pairs.safetensors", store.identity)
    settings = dict(clip_dim=4, embed_dims=6, text_memory=tmp_path / "store")
    for kind, more in ((GlobalPrefix, {}), (ObjectPrefix, {"top_concepts": 1})):
        neck = kind(**settings, **more, text_memory_pairs=tmp_path / "pairs.safetensors")
        assert (neck.text_memory.float() == expected[[1, 3]]).all()
        assert len(kind(**settings, **more).text_memory) == 4
