"""Outputs are equal to those of the released code, for each reference folder."""

import os
from pathlib import Path

import pytest

from tests.parity import GAMMA_TYPES, NotStored, Reference

_DEFAULT = Path(__file__).parent / "data" / "parity"


def _folders():
    named = os.environ.get("PCM_PARITY_DIR")
    roots = [Path(root) for root in named.split(":") if root] if named else [_DEFAULT]
    # A root is a reference folder or contains some.
    found = []
    for root in roots:
        files = [*root.glob("meta.json"), *sorted(root.glob("*/meta.json"))]
        if not files:
            raise FileNotFoundError(
                f"PCM_PARITY_DIR must contain meta.json or */meta.json, got {root}"
            )
        found += [file.parent for file in files]
    return found


@pytest.fixture(scope="module", params=_folders(), ids=lambda folder: folder.name)
def reference(request):
    return Reference(request.param)


def check(compare, *args):
    try:
        found = compare(*args)
        for comparison in found if not hasattr(found, "check") else [found]:
            comparison.check()
    except NotStored as missing:
        pytest.skip(str(missing))


def test_concepts(reference):
    check(reference.concepts)


def test_training_outputs(reference):
    check(reference.training_outputs)


def test_inference_outputs(reference):
    check(reference.inference_outputs)


@pytest.mark.parametrize("gamma_type", GAMMA_TYPES)
def test_losses(reference, gamma_type):
    check(reference.loss, gamma_type)


def test_gradients(reference):
    check(reference.gradients)


def test_loss_from_sentences(reference):
    check(reference.loss_from_sentences)


def test_captions(reference):
    check(reference.captions)
