import logging

import pytest
import torch
from torch.utils.data import ConcatDataset, Subset

from pcm_plugin.datasets import SynthCaptionDataset
from pcm_plugin.engine import VocabularyCoverageHook
from pcm_plugin.formats.vocabulary import Vocabulary
from tests.builders import build_store
from tests.test_tools.commands import run

CAPTIONS = [["a dog", "the dog"], ["cats"], ["a dog"], []]


class Runner:
    def __init__(self, dataset, words=("a", "dog")):
        self.model = torch.nn.Module()
        if words is not None:
            self.model.vocabulary = Vocabulary(words)
        self.train_dataloader = torch.utils.data.DataLoader(dataset)
        self.logger = logging.getLogger("runner")


@pytest.fixture
def store(tmp_path):
    build_store(tmp_path / "store", CAPTIONS)
    return tmp_path / "store"


def test_captions_of_the_selected_pairs_are_read(store):
    dataset = SynthCaptionDataset(store)
    assert list(dataset.iter_captions()) == ["a dog", "the dog", "cats", "a dog"]
    few = SynthCaptionDataset(store, max_pairs=2)
    assert sorted(few.iter_captions()) == sorted(few.sample(i).gt_caption for i in range(2))
    with pytest.raises(ValueError, match="got test_mode=True"):
        list(SynthCaptionDataset(store, test_mode=True).iter_captions())


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: ConcatDataset([x, x])])
def test_captions_without_known_words_stop_the_training(store, wrap, caplog):
    caplog.set_level(logging.INFO)
    runner = Runner(wrap(SynthCaptionDataset(store)))
    with pytest.raises(ValueError, match=r"1 of 4 captions \(25.0 %\).*'cats'.*default_hooks"):
        VocabularyCoverageHook().before_train(runner)
    VocabularyCoverageHook(max_unknown_captions=0.25).before_train(runner)
    assert "2 of 7 words (28.6 %) are not in the vocabulary; 1 of 4" in caplog.text


def test_models_and_datasets_without_words_are_not_checked(store, caplog):
    dataset = Subset(SynthCaptionDataset(store), [0])
    VocabularyCoverageHook().before_train(Runner(dataset, words=None))
    assert not caplog.text
    VocabularyCoverageHook().before_train(Runner([{"x": 1}]))
    assert "list has no iter_captions()" in caplog.text
    with pytest.raises(ValueError, match="1 of 4 captions"):
        VocabularyCoverageHook().before_train(Runner(dataset))


def test_the_training_command_rejects_another_vocabulary(tmp_path, tiny_settings):
    """Train with a vocabulary that has no word of one of the captions."""
    Vocabulary(["a", "two", "unrelated"]).to_file(tmp_path / "vocabulary.txt")
    settings = {
        **tiny_settings,
        "model.vocabulary": str(tmp_path / "vocabulary.txt"),
        "train_cfg.max_epochs": 1,
    }

    def train(**more):
        options = [f"{key}={value}" for key, value in {**settings, **more}.items()]
        args = ["configs/pcm_coco.py", "--work-dir", tmp_path / "run", "--cfg-options", *options]
        return run("train", *args, log=tmp_path / "log")

    result = train()
    assert result.code == 1
    last = result.output.splitlines()[-1]
    assert "1 of 12 captions (8.3 %) have no word that is in the vocabulary" in last
    assert "such as 'men'" in last
    assert not list((tmp_path / "run").glob("*.pth"))
    # The option that the message names.
    assert "default_hooks.vocabulary.max_unknown_captions=SHARE" in last
    result = train(**{"default_hooks.vocabulary.max_unknown_captions": 0.1})
    assert result.code == 0, result.output
    assert "1 of 12 captions have no known word" in result.output
