"""The released code's numbers, from every reference folder."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pcm_plugin.datasets.vocabulary import Vocabulary
from pcm_plugin.models import CLIPWeightedCELoss, PCMNet
from pcm_plugin.models.conversion import convert_official, official_names, split_products
from pcm_plugin.models.functional.beam_search import beam_search
from pcm_plugin.structures import DataSample

_DEFAULT = Path(__file__).parent / "data" / "parity"


def _folders():
    named = os.environ.get("PCM_PARITY_DIR")
    roots = [Path(root) for root in named.split(":") if root] if named else [_DEFAULT]
    # A root is a reference folder, or holds some.
    found = []
    for root in roots:
        files = [*root.glob("meta.json"), *sorted(root.glob("*/meta.json"))]
        if not files:
            raise FileNotFoundError(f"no meta.json in {root} or below: set PCM_PARITY_DIR right")
        found += [file.parent for file in files]
    return found


class Reference:
    """One folder, and our model with its weights; dropout and noise off."""

    def __init__(self, folder):
        self.meta = meta = json.loads((folder / "meta.json").read_text())
        self.inputs = load_file(folder / "inputs.safetensors")
        self.outputs = load_file(folder / "outputs.safetensors")
        official = load_file(folder / "official_state_dict.safetensors")
        state, sizes = convert_official(official)
        self.names = official_names(sizes.encoder_layers, sizes.decoder_layers)
        self.vocabulary = Vocabulary.from_file(folder / "vocabulary.txt")
        shared = {
            "embed_dims": sizes.embed_dims,
            "num_heads": meta["heads"],
            "ffn_dims": sizes.ffn_dims,
            "attn_dropout": 0.0,
            "dropout": 0.0,
        }
        self.model = PCMNet(
            neck={
                "type": "pcm_plugin.PCMMixup",
                "patch_dim": sizes.patch_dim,
                "clip_dim": sizes.clip_dim,
                "embed_dims": sizes.embed_dims,
                "num_patches": sizes.num_patches,
                "top_concepts": meta["top_concepts"],
                "top_patches": meta["top_patches"],
                "concept_threshold": meta["concept_threshold"],
                "temperature": meta["concept_temperature"],
                "mix": meta["replace"],
                "noise_var": 0.0,
                "dropout": 0.0,
            },
            encoder={
                "type": "pcm_plugin.VisualSemanticEncoder",
                "num_layers": sizes.encoder_layers,
                **shared,
            },
            decoder={
                "type": "pcm_plugin.SentenceDecoder",
                "num_layers": sizes.decoder_layers,
                "embed_dropout": 0.0,
                "output_dropout": 0.0,
                **shared,
            },
            loss=self.loss_config(meta["gamma_type"]),
            vocabulary=self.vocabulary,
            beam_size=meta["beam_size"],
            max_len=meta["max_len"],
        )
        self.model.load_state_dict(state)
        concepts = self.inputs["concept_embeddings"]
        self.model.neck.set_concepts([f"c{i}" for i in range(len(concepts))], concepts)
        self.feats = {key: self.inputs[key] for key in ("patch_feats", "global_feats")}

    def loss_config(self, gamma_type):
        return {
            "type": "pcm_plugin.CLIPWeightedCELoss",
            "label_smoothing": self.meta["label_smoothing"],
            "clip_weight": self.meta["alpha"],
            "gamma": self.meta["gamma"],
            "gamma_type": gamma_type,
        }

    def loss(self, gamma_type):
        config = self.loss_config(gamma_type)
        config.pop("type")
        return CLIPWeightedCELoss(**config)

    def generate(self, beam_size):
        memory, mixed = self.model.eval().encode(**self.feats)
        cache = self.model.decoder.start(memory, mixed.mask)

        def step(words, parents):
            if parents is not None:
                cache.reorder(parents)
            return self.model.decoder.step(words, cache)

        meta = self.meta
        return beam_search(
            step, len(memory), beam_size, meta["max_len"], meta["bos_id"], meta["eos_id"]
        )

    def needs_training_outputs(self):
        if self.meta["replace"] == "random":
            pytest.skip("which patches training replaces is random, and the draw is not stored")


@pytest.fixture(scope="module", params=_folders(), ids=lambda folder: folder.name)
def reference(request):
    return Reference(request.param)


def assert_close(ours, theirs, atol=0.0, rtol=0.0):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=rtol)


def test_concepts(reference):
    with torch.no_grad():
        _, mixed = reference.model.eval().encode(**reference.feats)
    assert torch.equal(mixed.concept_ids, reference.outputs["concept_ids"])
    assert_close(mixed.concept_probs, reference.outputs["concept_probs"], atol=1e-5)


@torch.no_grad()
def test_training_outputs(reference):
    reference.needs_training_outputs()
    model, inputs, outputs = reference.model.train(), reference.inputs, reference.outputs
    mixed = model.neck(**reference.feats)
    memory = model.encoder(mixed.tokens, mixed.mask)
    logits = model.decoder(inputs["token_ids"], memory, mixed.mask)
    assert_close(mixed.tokens, outputs["train.embed"], atol=2e-5)
    assert_close(memory, outputs["train.encoded"], atol=2e-5)
    assert_close(logits, outputs["train.logits"], atol=1e-4)


@torch.no_grad()
def test_inference_outputs(reference):
    model, outputs = reference.model.eval(), reference.outputs
    memory, mixed = model.encode(**reference.feats)
    # The released code has a text slot for each of N patches, at 1 + N + patch.
    visual = 1 + reference.feats["patch_feats"].shape[1]
    for ours, name in ((mixed.tokens, "eval.embed"), (memory, "eval.encoded")):
        assert_close(ours[:, :visual], outputs[name][:, :visual], atol=2e-5)
        used = mixed.slots >= 0
        theirs = torch.stack(
            [rows[visual + slots] for rows, slots in zip(outputs[name], mixed.slots, strict=True)]
        )
        assert_close(ours[:, visual:][used], theirs[used], atol=2e-5)


@pytest.mark.parametrize("gamma_type", ["none", "word", "batch", "sent"])
def test_losses(reference, gamma_type):
    name = f"loss.gamma_{gamma_type}"
    if name not in reference.outputs:
        pytest.skip(f"{name} is not among the reference values")
    loss = reference.loss(gamma_type)(
        reference.outputs["train.logits"],
        reference.inputs["target_ids"],
        reference.inputs["clip_score_w25"],
    )
    assert_close(loss, reference.outputs[name], rtol=1e-5)


def test_gradients(reference):
    reference.needs_training_outputs()
    model, inputs, outputs = reference.model.train(), reference.inputs, reference.outputs
    model.zero_grad()
    memory, mixed = model.encode(**reference.feats)
    logits = model.decoder(inputs["token_ids"], memory, mixed.mask)
    loss = model.loss_module(logits, inputs["target_ids"], inputs["clip_score_w25"])
    loss.backward()
    assert_close(loss.detach(), outputs["train.loss"], rtol=1e-5)

    gradients = split_products({k: p.grad for k, p in model.named_parameters()})
    norms = {k.removeprefix("grad_norm."): v for k, v in outputs.items() if "grad_norm." in k}
    assert {reference.names[key] for key in norms} == set(gradients)
    largest = float(max(norms.values()))
    for key, norm in norms.items():
        gradient = gradients[reference.names[key]]
        # A softmax does not see its keys' bias: that gradient is zero but for rounding.
        slack = 1e-6 * largest if key.endswith("key.bias") else 0.0
        assert_close(gradient.norm(), norm, rtol=1e-4, atol=slack)


def test_loss_from_sentences(reference):
    """The captioner's own loss mode, which encodes the captions itself."""
    reference.needs_training_outputs()
    inputs, vocabulary = reference.inputs, reference.vocabulary
    captions = [vocabulary.decode(ids[ids >= 0]) for ids in inputs["target_ids"]]
    encoded = [vocabulary.encode(caption, reference.meta["max_len"]) for caption in captions]
    if not torch.equal(torch.stack([target for _, target in encoded]), inputs["target_ids"]):
        pytest.skip("these captions were not made by the vocabulary's own rules")
    samples = [DataSample() for _ in captions]
    for sample, caption, score in zip(samples, captions, inputs["clip_score_w25"], strict=True):
        sample.gt_caption, sample.clip_score = caption, float(score)
    with torch.no_grad():
        losses = reference.model.train()(**reference.feats, data_samples=samples, mode="loss")
    assert_close(losses["loss"], reference.outputs["train.loss"], rtol=1e-5)


def test_captions(reference):
    outputs, meta = reference.outputs, reference.meta
    beams = reference.generate(meta["beam_size"])
    assert torch.equal(beams.ids[:, 0], outputs["beam.ids"])
    ours, theirs = beams.log_probs[:, 0], outputs["beam.logp"]
    if meta["beam_size"] == 1:
        # The released greedy search notes log-probabilities even after the end.
        running = (beams.ids[:, 0] == meta["eos_id"]).cumsum(1).roll(1, 1)
        running[:, 0] = 0
        ours, theirs = ours[running == 0], theirs[running == 0]
    assert_close(ours, theirs, atol=1e-4)
    assert torch.equal(reference.generate(1).ids[:, 0], outputs["greedy.ids"])

    model = reference.model.eval()
    for beam_size, name in ((meta["beam_size"], "beam"), (1, "greedy")):
        model.search = model.search._replace(beam_size=beam_size)
        samples = model(**reference.feats, mode="predict")
        # The released code prints the stop token; we do not.
        theirs = [caption.removesuffix(" .") for caption in meta[f"{name}_captions"]]
        assert [sample.pred_caption for sample in samples] == theirs
    model.search = model.search._replace(beam_size=meta["beam_size"])
    printed = [reference.vocabulary.decode(ids, with_stop=True) for ids in beams.ids[:, 0]]
    assert printed == meta["beam_captions"]
