"""SynTIC: neck, captioner, and objects from concepts or labels."""

import json

import pytest
import torch
import torch.nn.functional as F
from mmengine.dataset import default_collate
from mmengine.optim import OptimWrapper

from pcm_plugin.errors import UserError
from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.models import ObjectPrefix
from pcm_plugin.models.captioner_file import load_captioner, save_captioner
from pcm_plugin.models.functional.text_memory import project_onto_text_memory
from pcm_plugin.registry import DATASETS, MODELS
from pcm_plugin.structures import DataSample
from tests.builders import build_clip, build_store
from tests.conftest import CAPTIONS

DC, D, K = 8, 16, 3
WORDS = ["dog", "man", "cat", "boat", "horse", "car", "sea", "bench"]


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1)


def make_neck(**settings):
    torch.manual_seed(0)
    sizes = dict(
        clip_dim=DC, embed_dims=D, top_concepts=K, text_memory_temperature=0.1, dropout=0.0
    )
    neck = ObjectPrefix(**sizes | settings)
    neck.set_concepts(WORDS, unit(len(WORDS), DC, seed=1))
    neck.set_text_memory(unit(30, DC, seed=2))
    return neck


def make_config(**settings):
    return {
        "type": "pcm_plugin.SynTIC",
        "neck": {
            "type": "pcm_plugin.ObjectPrefix",
            "clip_dim": DC,
            "embed_dims": D,
            "top_concepts": K,
            "text_memory_temperature": 0.1,
            "dropout": 0.0,
        },
        "encoder": None,
        "decoder": {
            "type": "pcm_plugin.SentenceDecoder",
            "embed_dims": D,
            "num_heads": 4,
            "num_layers": 4,
            "ffn_dims": 32,
            "attn_dropout": 0.0,
            "dropout": 0.0,
            "output_dropout": 0.0,
        },
        "loss": {"type": "pcm_plugin.CLIPWeightedCELoss", "use_clip_weight": False},
        "vocabulary": Vocabulary.build([t for own in CAPTIONS for t in own], min_count=1),
        "decoding": {"max_len": 12},
        **settings,
    }


def make_model(**settings):
    torch.manual_seed(0)
    model = MODELS.build(make_config(**settings))
    model.neck.set_concepts(WORDS, unit(len(WORDS), DC, seed=1))
    model.neck.set_text_memory(unit(30, DC, seed=2))
    return model


def make_samples(objects=None):
    samples = []
    for i, own in enumerate(CAPTIONS):
        sample = DataSample(metainfo={"image_id": str(i)})
        sample.set_field(own[0], "gt_caption")
        if objects is not None:
            sample.set_field(objects[i], "object_labels")
        samples.append(sample)
    return samples


def test_tokens_are_equal_in_training_and_at_inference():
    neck, feats = make_neck(), unit(4, DC, seed=3)
    trained, seen = neck.train()(None, feats), neck.eval()(None, 5 * feats)
    torch.testing.assert_close(trained.tokens, seen.tokens)
    assert seen.tokens.shape == (4, 1 + K, D)
    assert seen.mask.all()


def test_the_first_token_is_the_projection_and_the_others_are_concepts():
    neck, feats = make_neck().eval(), unit(4, DC, seed=3)
    out = neck(None, feats)
    projected = project_onto_text_memory(feats, [neck.text_memory], 0.1)
    first = neck.norm(F.relu(neck.global_proj(projected)))
    torch.testing.assert_close(out.tokens[:, 0], first)
    probs, ids = (feats @ neck.concept_bank.embeddings.T / 0.1).softmax(-1).topk(K)
    assert torch.equal(out.concept_ids, ids)
    torch.testing.assert_close(out.concept_probs, probs)
    others = neck.norm(F.relu(neck.object_proj(neck.concept_bank.embeddings[ids])))
    torch.testing.assert_close(out.tokens[:, 1:], others)
    # The projection would retrieve other concepts.
    assert not torch.equal((projected @ neck.concept_bank.embeddings.T).topk(K).indices, ids)
    assert out.affinity is out.selected is out.slots is None


def test_given_objects_replace_the_retrieved_concepts():
    neck, feats = make_neck().eval(), unit(3, DC, seed=3)
    objects = torch.tensor([[4, 1, 0, 2], [7, -1, -1, -1], [-1, -1, -1, -1]])
    out, found = neck(None, feats, objects), neck(None, feats)
    assert torch.equal(out.tokens[:, 0], found.tokens[:, 0])
    assert out.mask.tolist() == [[True] * 5, [True, True] + [False] * 3, [True] + [False] * 4]
    expected = neck.norm(F.relu(neck.object_proj(neck.concept_bank.embeddings[[4, 1, 0, 2]])))
    torch.testing.assert_close(out.tokens[0, 1:], expected)
    assert torch.equal(out.concept_ids, objects)
    likely = (feats @ neck.concept_bank.embeddings.T / 0.1).softmax(-1)
    torch.testing.assert_close(out.concept_probs[0], likely[0, objects[0]])
    assert out.concept_probs[1, 1:].eq(0).all()
    assert neck(None, feats, torch.empty(3, 0, dtype=torch.int64)).tokens.shape == (3, 1, D)


@torch.no_grad()
def test_padding_of_objects_does_not_change_the_output():
    model, feats = make_model().eval(), unit(6, DC, seed=3)
    labels = [["dog"], ["man", "bench"], ["cat"], [], ["horse"], ["car", "sea"]]
    more = [["dog", "man", "cat", "boat"], *labels[1:]]
    logits = model(global_feats=feats, data_samples=make_samples(labels))
    padded = model(global_feats=feats, data_samples=make_samples(more))
    torch.testing.assert_close(padded[1:], logits[1:])
    assert not torch.allclose(padded[0], logits[0])
    one_by_one = [
        model(global_feats=feats[[i]], data_samples=make_samples(labels)[i : i + 1]) for i in (1, 3)
    ]
    for i, alone in zip((1, 3), one_by_one, strict=True):
        torch.testing.assert_close(logits[i, : alone.shape[1]], alone[0])
    samples = model(global_feats=feats, data_samples=make_samples(labels), mode="predict")
    words = model.neck.concept_words
    assert [[words[i] for i in s.pred_concept_ids] for s in samples] == labels
    assert [len(s.pred_concept_probs) for s in samples] == [1, 2, 1, 0, 1, 2]
    assert "pred_affinity" not in samples[0]


def test_labels_of_the_retrieved_concepts_give_the_same_captions():
    model, feats = make_model().eval(), unit(6, DC, seed=3)
    found = model(global_feats=feats, mode="predict")
    labels = [[WORDS[i] for i in sample.pred_concept_ids] for sample in found]
    given = model(global_feats=feats, data_samples=make_samples(labels), mode="predict")
    assert [s.pred_caption for s in given] == [s.pred_caption for s in found]
    for ours, theirs in zip(given, found, strict=True):
        torch.testing.assert_close(ours.pred_concept_probs, theirs.pred_concept_probs)


@pytest.mark.parametrize("with_objects", [False, True])
def test_training_on_a_store_reduces_the_loss(tmp_path, with_objects):
    shape = dict(num_patches=1, patch_dim=4, clip_dim=DC)
    build_store(tmp_path / "store", CAPTIONS, **shape)
    settings = dict(type="pcm_plugin.SynthCaptionDataset", store=tmp_path / "store")
    settings["features"] = "global"
    if with_objects:
        objects = {f"image{i}": [WORDS[i], "sea"] for i in range(len(CAPTIONS))}
        (tmp_path / "objects.json").write_text(json.dumps(objects))
        settings["object_labels"] = tmp_path / "objects.json"
    batch = default_collate([*DATASETS.build(settings)])
    model = make_model()
    optimizer = OptimWrapper(torch.optim.Adam(model.parameters(), lr=0.01))
    first = model(**batch, mode="loss")["loss"]
    first.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    for _ in range(60):
        last = model.train_step(batch, optimizer)["loss"]
    assert last.detach() < first.detach() / 4
    tests = DATASETS.build({**settings, "test_mode": True})
    samples = model.eval().val_step(default_collate([*tests]))
    right = [sample.pred_caption in sample.gt_caption for sample in samples]
    assert sum(right) >= 5


def test_only_the_decoder_and_the_linear_maps_of_the_prefix_are_trained():
    names = {name.split(".")[0] for name, _ in make_model().named_parameters()}
    assert names == {"neck", "decoder"}
    kept = {name for name in make_model().state_dict() if name.startswith("neck.")}
    maps = ("global_proj", "object_proj", "norm")
    assert kept == {f"neck.{name}.{part}" for name in maps for part in ("weight", "bias")}


def test_it_can_be_saved_as_one_file(tmp_path):
    clip = build_clip(tmp_path / "clip")
    config, model = make_config(), make_model().eval()
    settings = {key: value for key, value in config.items() if key != "vocabulary"}
    settings["neck"] = {**config["neck"], "concepts": "/nowhere", "text_memory": "/nowhere"}
    path = tmp_path / "syntic.safetensors"
    save_captioner(path, model, settings, {"model_name": clip})
    again = load_captioner(path)
    assert type(again) is type(model)
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    assert again.neck.concept_words == WORDS
    assert torch.equal(again.neck.text_memory, model.neck.text_memory)
    images = torch.randn(2, 3, 16, 16)
    expected = model(global_feats=again.extract_feat(images)[1], mode="predict")
    found = again(images=images, mode="predict")
    assert [s.pred_caption for s in found] == [s.pred_caption for s in expected]


def test_errors_name_the_value_and_the_fix(tmp_path):
    model, feats = make_model().eval(), unit(6, DC, seed=3)
    labels = [["dog"], ["unicorn", "cat"], [], [], [], []]
    with pytest.raises(ValueError, match=r"must be concepts of the neck, got `\['unicorn'\]`"):
        model(global_feats=feats, data_samples=make_samples(labels), mode="predict")
    samples = make_samples([["dog"]] * 6)
    del samples[2].object_labels
    with pytest.raises(ValueError, match="must be set for all data samples or for none"):
        model(global_feats=feats, data_samples=samples, mode="predict")
    with pytest.raises(ValueError, match="got no input"):
        model(data_samples=make_samples([["dog"]] * 6), mode="predict")
    with pytest.raises(ValueError, match=r"`global_feats` must be .* got `\(2, 5\)`"):
        model(global_feats=unit(2, 5), mode="predict")
    bare = ObjectPrefix(clip_dim=DC, embed_dims=D)
    with pytest.raises(UserError, match="no text memory"):
        bare(None, feats)
    bare.set_text_memory(unit(3, DC))
    with pytest.raises(UserError, match="no concepts"):
        bare(None, feats)
    with pytest.raises(ValueError, match="must be at most the 2 concepts, got `5`"):
        bare.set_concepts(["a", "b"], unit(2, DC))
