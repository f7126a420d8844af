"""Comparison of this package with the outputs of the released code, on any device.

A reference folder contains inputs, weights and outputs of one run of the released code.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from pcm_plugin.formats.vocabulary import Vocabulary
from pcm_plugin.models import CLIPWeightedCELoss, PCMNet
from pcm_plugin.models.functional.beam_search import BeamOutput, beam_search
from pcm_plugin.models.released_checkpoint import (
    convert_official,
    official_names,
    split_projections,
)
from pcm_plugin.structures import DataSample

GAMMA_TYPES = ("none", "word", "batch", "sent")


class NotStored(Exception):
    """The reference folder lacks the values of a comparison."""


class Comparison(NamedTuple):
    """A value of this package, the reference value and the tolerance.

    Attributes:
        name: Name of the value.
        ours: Our tensor, or a list of captions.
        theirs: The reference value.
        atol: Absolute tolerance. If both tolerances are 0, the values must be equal.
        rtol: Relative tolerance.
    """

    name: str
    ours: Tensor | list[str]
    theirs: Tensor | list[str]
    atol: float = 0.0
    rtol: float = 0.0

    def check(self) -> None:
        """Raise an AssertionError with the name if the values differ by more than the tolerance."""
        if isinstance(self.ours, list):
            assert self.ours == self.theirs, f"{self.name}: {self.ours} != {self.theirs}"
            return
        torch.testing.assert_close(
            self.ours,
            self.theirs,
            atol=self.atol,
            rtol=self.rtol,
            msg=lambda message: f"{self.name}: {message}",
        )

    def error(self) -> float:
        """Return the largest absolute difference, or the number of different captions."""
        if isinstance(self.ours, list):
            return float(sum(a != b for a, b in zip(self.ours, self.theirs, strict=True)))
        assert isinstance(self.theirs, Tensor)
        return float((self.ours.double() - self.theirs.double()).abs().max())


def _selection(meta: dict, num_patches: int) -> dict:
    """Return the settings of PCMMixup for the released `top_patches` and `replace`.

    The released `top_patches` is a number of patch-concept pairs, or below 1 their share; with
    random replacement it is the share of patches.
    """
    count = meta["top_patches"]
    if meta["replace"] == "random":
        return {"selection": "random", "random_ratio": count}
    if meta["replace"] == "none":
        return {"selection": "none"}
    if count < 1:
        count *= num_patches * meta["top_concepts"]
    return {"selection": "top_pairs", "num_pairs": int(count)}


class Reference:
    """A reference folder and a model with its weights, without dropout and noise.

    Args:
        folder: Folder that contains ``meta.json``.
        device: Device of the model and the values. Defaults to the CPU.
    """

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.meta = meta = json.loads((folder / "meta.json").read_text())
        self.inputs, self.outputs = (
            {key: value.to(device) for key, value in load_file(folder / name).items()}
            for name in ("inputs.safetensors", "outputs.safetensors")
        )
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
                **_selection(meta, sizes.num_patches),
                "concept_threshold": meta["concept_threshold"],
                "temperature": meta["concept_temperature"],
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
            loss={"type": "pcm_plugin.CLIPWeightedCELoss", **self._loss_config()},
            vocabulary=self.vocabulary,
            decoding={"beam_size": meta["beam_size"], "max_len": meta["max_len"]},
        )
        self.model.load_state_dict(state)
        concepts = self.inputs["concept_embeddings"]
        self.model.neck.set_concepts([f"c{i}" for i in range(len(concepts))], concepts)
        self.model.to(device)
        self.feats = {key: self.inputs[key] for key in ("patch_feats", "global_feats")}

    @torch.no_grad()
    def concepts(self) -> list[Comparison]:
        """Compare the concepts of the images."""
        found = self.model.eval().encode(**self.feats).neck_out
        ids, probs = self.outputs["concept_ids"], self.outputs["concept_probs"]
        return [
            Comparison("concept ids", found.concept_ids, ids),
            Comparison("concept probabilities", found.concept_probs, probs, atol=1e-5),
        ]

    @torch.no_grad()
    def training_outputs(self) -> list[Comparison]:
        """Compare tokens, encoder output and logits in training mode."""
        self._needs_training_outputs()
        model, outputs = self.model.train(), self.outputs
        mixed = model.neck(**self.feats)
        memory = model.encoder(mixed.tokens, mixed.mask)
        logits = model.decoder(self.inputs["token_ids"], memory, mixed.mask)
        return [
            Comparison("training tokens", mixed.tokens, outputs["train.embed"], atol=2e-5),
            Comparison("training memory", memory, outputs["train.encoded"], atol=2e-5),
            Comparison("training logits", logits, outputs["train.logits"], atol=1e-4),
        ]

    @torch.no_grad()
    def inference_outputs(self) -> list[Comparison]:
        """Compare tokens and encoder output at inference."""
        encoded = self.model.eval().encode(**self.feats)
        tokens, slots_of_images = encoded.neck_out.tokens, encoded.neck_out.slots
        # The released code has a text slot for each of N patches, at 1 + N + patch.
        visual = 1 + self.feats["patch_feats"].shape[1]
        used = slots_of_images >= 0
        found = []
        for ours, name in ((tokens, "eval.embed"), (encoded.encoder_out, "eval.encoded")):
            rows = self.outputs[name]
            texts = torch.stack(
                [row[visual + slots] for row, slots in zip(rows, slots_of_images, strict=True)]
            )
            found += [
                Comparison(f"{name}, patches", ours[:, :visual], rows[:, :visual], atol=2e-5),
                Comparison(f"{name}, texts", ours[:, visual:][used], texts[used], atol=2e-5),
            ]
        return found

    def loss(self, gamma_type: str) -> Comparison:
        """Compare the loss of the stored logits, for one type of the confidence factor."""
        name = f"loss.gamma_{gamma_type}"
        if name not in self.outputs:
            raise NotStored(f"{name} is not among the reference values")
        loss = CLIPWeightedCELoss(**{**self._loss_config(), "gamma_type": gamma_type})(
            self.outputs["train.logits"], self.inputs["target_ids"], self.inputs["clip_score_w25"]
        )
        return Comparison(name, loss, self.outputs[name], rtol=1e-5)

    def gradients(self) -> list[Comparison]:
        """Compare the training loss and the gradient norm of each parameter."""
        self._needs_training_outputs()
        model, inputs, outputs = self.model.train(), self.inputs, self.outputs
        model.zero_grad()
        encoded = model.encode(**self.feats)
        logits = model.decoder(inputs["token_ids"], encoded.encoder_out, encoded.mask)
        loss = model.loss_module(logits, inputs["target_ids"], inputs["clip_score_w25"])
        loss.backward()
        found = [Comparison("training loss", loss.detach(), outputs["train.loss"], rtol=1e-5)]
        gradients = split_projections({k: p.grad for k, p in model.named_parameters()})
        norms = {k.removeprefix("grad_norm."): v for k, v in outputs.items() if "grad_norm." in k}
        assert {self.names[key] for key in norms} == set(gradients)
        largest = float(max(norms.values()))
        for key, norm in norms.items():
            # Softmax is invariant to the bias of the keys, whose gradient is zero up to rounding.
            slack = 1e-6 * largest if key.endswith("key.bias") else 0.0
            ours = gradients[self.names[key]].norm()
            found.append(Comparison(f"gradient of {key}", ours, norm, rtol=1e-4, atol=slack))
        return found

    @torch.no_grad()
    def loss_from_sentences(self) -> Comparison:
        """Compare the loss mode of the captioner, which tokenizes the captions."""
        self._needs_training_outputs()
        inputs, vocabulary = self.inputs, self.vocabulary
        targets = inputs["target_ids"].cpu()
        captions = [vocabulary.decode(ids[ids >= 0]) for ids in targets]
        encoded = [vocabulary.encode(caption, self.meta["max_len"]) for caption in captions]
        if not torch.equal(torch.stack([target for _, target in encoded]), targets):
            raise NotStored("these targets were not tokenized by the rules of Vocabulary")
        samples = [DataSample() for _ in captions]
        for sample, caption, score in zip(samples, captions, inputs["clip_score_w25"], strict=True):
            sample.gt_caption, sample.clip_score = caption, float(score)
        losses = self.model.train()(**self.feats, data_samples=samples, mode="loss")
        return Comparison("loss mode", losses["loss"], self.outputs["train.loss"], rtol=1e-5)

    def captions(self) -> Iterator[Comparison]:
        """Compare word indices, log-probabilities and captions of beam and greedy search."""
        outputs, meta, model = self.outputs, self.meta, self.model.eval()
        beams = self._generate(meta["beam_size"])
        yield Comparison("beam ids", beams.ids[:, 0], outputs["beam.ids"])
        ours, theirs = beams.log_probs[:, 0], outputs["beam.logp"]
        if meta["beam_size"] == 1:
            # The released greedy search stores log-probabilities even after the end token.
            running = (beams.ids[:, 0] == meta["eos_id"]).cumsum(1).roll(1, 1)
            running[:, 0] = 0
            ours, theirs = ours[running == 0], theirs[running == 0]
        yield Comparison("beam log-probabilities", ours, theirs, atol=1e-4)
        yield Comparison("greedy ids", self._generate(1).ids[:, 0], outputs["greedy.ids"])
        for beam_size, name in ((meta["beam_size"], "beam"), (1, "greedy")):
            model.decoding = model.decoding.updated({"beam_size": beam_size})
            with torch.no_grad():
                samples = model(**self.feats, mode="predict")
            # The released code prints the end token.
            theirs = [caption.removesuffix(" .") for caption in meta[f"{name}_captions"]]
            yield Comparison(f"{name} captions", [s.pred_caption for s in samples], theirs)
        model.decoding = model.decoding.updated({"beam_size": meta["beam_size"]})
        printed = [self.vocabulary.decode(ids, keep_eos=True) for ids in beams.ids[:, 0]]
        yield Comparison("printed captions", printed, meta["beam_captions"])

    def comparisons(self) -> Iterator[Comparison]:
        """Yield all comparisons for which the folder has values."""
        for name in ("concepts", "training_outputs", "inference_outputs", "gradients", "captions"):
            try:
                yield from getattr(self, name)()
            except NotStored:
                continue
        for compare in (self.loss_from_sentences, *(lambda g=g: self.loss(g) for g in GAMMA_TYPES)):
            try:
                yield compare()
            except NotStored:
                continue

    def _loss_config(self) -> dict:
        return {
            "label_smoothing": self.meta["label_smoothing"],
            "clip_weight": self.meta["alpha"],
            "gamma": self.meta["gamma"],
            "gamma_type": self.meta["gamma_type"],
        }

    def _generate(self, beam_size: int) -> BeamOutput:
        with torch.no_grad():
            encoded = self.model.eval().encode(**self.feats)
        cache = self.model.decoder.start(encoded.encoder_out, encoded.mask)

        def step(words: Tensor, parents: Tensor | None) -> Tensor:
            if parents is not None:
                cache.reorder(parents)
            return self.model.decoder.step(words, cache)

        meta = self.meta
        return beam_search(
            step,
            len(encoded.encoder_out),
            beam_size,
            meta["max_len"],
            meta["bos_id"],
            meta["eos_id"],
            device=encoded.encoder_out.device,
        )

    def _needs_training_outputs(self) -> None:
        if self.meta["replace"] == "random":
            raise NotStored("training replaces random patches, and the selection is not stored")
