"""What is held out for validation is not trained on."""

import numpy as np
import pytest
from torch.utils.data import ConcatDataset

from pcm_plugin.datasets import SynthCaptionDataset
from pcm_plugin.engine.held_out import check_held_out
from pcm_plugin.errors import UserError
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.image_references import save_references
from pcm_plugin.formats.pair_selection import PairSelection, load_pairs
from pcm_plugin.synthesis.pipeline.stores import merge
from tests.builders import build_store

CAPTIONS = [["a dog"], ["The cat, runs."], ["a car"], ["a tree"], ["a house"]]
ENGLISH = "en"


@pytest.fixture
def folder(tmp_path):
    """Return a folder with a store, of which the first two images are held out."""
    build_store(tmp_path / "store", CAPTIONS)
    save_references(tmp_path / "references.jsonl", {f"image{i}": CAPTIONS[i] for i in range(2)})
    return tmp_path


def split(folder):
    return SynthCaptionDataset(
        folder / "store", test_mode=True, references=folder / "references.jsonl"
    )


def write(folder, store, images, captions):
    """Write pairs, and return their file."""
    reader = FeatureStore(store)
    every = load_pairs(reader)
    scores = every.score[: len(captions)]
    numbers = np.array(images), np.array(captions)
    pairs = PairSelection(*numbers, scores, scores.copy())
    pairs.to_file(folder / "pairs.safetensors", reader.identity)
    return folder / "pairs.safetensors"


def test_all_pairs_are_refused_and_the_others_are_not(folder):
    training = SynthCaptionDataset(folder / "store")
    with pytest.raises(
        UserError,
        match=r"trains on 2 captions \('a dog', 'The cat, runs.'\) and 2 images that are held out "
        r"for the validation.*validation/train_pairs.safetensors.*refine --among",
    ):
        check_held_out(training, split(folder), ENGLISH)
    file = write(folder, folder / "store", [2, 3, 4], [2, 3, 4])
    check_held_out(SynthCaptionDataset(folder / "store", pairs=file), split(folder), ENGLISH)


def test_a_held_out_image_with_another_caption_is_refused(folder):
    file = write(folder, folder / "store", [1, 3], [2, 3])
    training = SynthCaptionDataset(folder / "store", pairs=file)
    with pytest.raises(UserError, match="trains on 0 captions and 1 images that are held out"):
        check_held_out(training, split(folder), ENGLISH)


@pytest.mark.parametrize("prefix", [False, True])
def test_images_and_captions_of_a_merged_store_are_recognized(folder, prefix):
    build_store(folder / "more", [["a house"], ["a red dog"]], seed=1, ids=["x", "y"])
    head = "clip_head.safetensors"
    (folder / "more" / head).write_bytes((folder / "store" / head).read_bytes())
    manifest = folder / "more" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seed": 1', '"seed": 0'))
    merge([folder / "more", folder / "store"], folder / "both", prefix_ids=prefix)
    training = SynthCaptionDataset(folder / "both")
    with pytest.raises(UserError, match=r"trains on 2 captions .* and 2 images that"):
        check_held_out(training, split(folder), ENGLISH)
    file = write(folder, folder / "both", [0, 1, 4, 5, 6], [0, 1, 4, 5, 6])
    check_held_out(SynthCaptionDataset(folder / "both", pairs=file), split(folder), ENGLISH)


@pytest.mark.parametrize(
    ("text", "language"), [("A dog!", "en"), ("the cat runs", "en"), ("Ein Hund.", "de")]
)
def test_captions_with_the_same_words_are_the_same(folder, text, language):
    """The image is another one, in a store of its own."""
    save_references(
        folder / "references.jsonl", {"image0": ["a dog", "ein Hund"], "image1": CAPTIONS[1]}
    )
    build_store(folder / "own", [["a tree"], [text]], seed=1)
    training = ConcatDataset([SynthCaptionDataset(folder / "own")])
    with pytest.raises(UserError, match=r"trains on 1 captions .* and 0 images"):
        check_held_out(training, split(folder), language)
    build_store(folder / "other", [["a tree"], ["dog a"]], seed=1)
    training = SynthCaptionDataset(folder / "other")
    check_held_out(training, split(folder), language)


def test_other_validation_data_are_not_checked(folder):
    training = SynthCaptionDataset(folder / "store")
    check_held_out(training, SynthCaptionDataset(folder / "store", test_mode=True), ENGLISH)
    check_held_out([{"x": 1}], split(folder), ENGLISH)
