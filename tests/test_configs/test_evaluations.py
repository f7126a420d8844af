"""Evaluation of configs on other data sets than their own."""

from pathlib import Path

import pytest
from mmengine.config import Config

from pcm_plugin.commands.build_commands import check_inputs
from pcm_plugin.commands.evaluation_names import EVALUATIONS, list_evaluations
from pcm_plugin.commands.evaluations import apply_evaluation
from pcm_plugin.engine.config_files import find_config
from pcm_plugin.errors import MissingFileError, UserError
from tests.configs import load_config, read_commands

CROSS_DOMAIN = [
    (f"{system}_{source}{clip}", target, texts)
    for source, target in (("coco", "flickr30k"), ("flickr30k", "coco"))
    for system, clip, texts in (
        *(("pcm", "", ""), ("pcm", "_vitl14", ""), ("pcm", "", "_tt"), ("capdec", "", "")),
        *(("decap", "", ""), ("decap", "", "_tt"), ("syntic", "", ""), ("syntic", "", "_tt")),
    )
]
NOCAPS = ["pcm", "capdec", "decap", "prefix_text", "prefix", "prefix_pcm", "prefix_pcm_vse"]


def missing_files(cfg):
    """Missing files of a test, with the commands that make them."""
    with pytest.raises(MissingFileError) as caught:
        check_inputs(cfg, ["test"])
    return dict(read_commands(str(caught.value)))


@pytest.mark.parametrize(("name", "target", "texts"), CROSS_DOMAIN)
def test_cross_domain_has_the_weights_of_one_and_the_images_of_the_other(name, target, texts):
    own, cfg = load_config(name), load_config(name, target + texts)
    system, source = name.split("_")[:2]
    features = "vit_l14" if name.endswith("vitl14") else "vit_b32"
    assert cfg.model.vocabulary == f"data/{source}/vocabulary.txt"
    assert cfg.train_dataloader == own.train_dataloader
    assert cfg.test_dataloader.dataset.store == f"data/{target}/{features}/test_store"
    assert cfg.test_dataloader.dataset.data_prefix == f"data/{target}/images"
    # Each missing file is made of the captions of its data set, and only the settings with target
    # texts read target texts.
    commands = missing_files(cfg)
    for path, command in commands.items():
        dataset = path.split("/")[1]
        assert f"data/{dataset}/dataset_{dataset}.json" in command
        assert path in command or path.endswith(("clip_head.safetensors", "train_store"))
    assert f"data/{target}/{features}/test_store" in commands
    if system in ("pcm", "syntic"):
        at_home = Config.fromfile(find_config(name.replace(source, target)))
        of_captions = f"data/{target}/vit_b32/concepts_of_captions.safetensors"
        concepts = of_captions if system == "pcm" and texts else at_home.model.neck.concepts
        assert cfg.model.neck.concepts == concepts
        assert concepts.startswith(f"data/{target}/{features}/")
    if system in ("decap", "syntic"):
        memory = target if texts else source
        assert cfg.model.neck.text_memory == f"data/{memory}/vit_b32/train_store"


@pytest.mark.parametrize("system", NOCAPS)
def test_nocaps_is_scored_by_domain_and_has_no_splits(system):
    cfg, trained = load_config(f"{system}_coco", "nocaps"), load_config(f"{system}_coco").model
    if system.startswith("prefix"):  # entities and threshold of ViECap's prompt are others there
        trained.entity_prompt.concepts = cfg.model.entity_prompt.concepts
        trained.entity_prompt.concept_threshold = 0.2
        trained.entity_prompt.caption_entities = None
    assert cfg.model == trained
    commands = missing_files(cfg)
    captions = "data/nocaps/nocaps_val_4500_captions.json"
    assert cfg.test_evaluator.groups == captions
    assert "nocaps.org" in commands[captions]
    command = commands["data/nocaps/vit_b32/val_store"]
    assert f"pcm extract data/nocaps/images --captions {captions} --model" in command
    of_coco = [made for path, made in commands.items() if path.startswith("data/coco/")]
    assert of_coco or system in ("prefix_text", "prefix")
    assert all("data/coco/dataset_coco.json" in made for made in of_coco)


def test_a_config_is_unchanged_on_its_own_data_set():
    for name in ("pcm_coco", "prefix_coco"):
        assert load_config(name, "coco").to_dict() == load_config(name).to_dict()


def test_features_of_other_clips_lie_in_folders_of_the_same_name():
    cfg = load_config("pcm_coco_siglip2", "flickr30k")
    assert cfg.test_dataloader.dataset.store == "data/flickr30k/siglip2_b16/test_store"
    assert cfg.model.neck.concepts == "data/flickr30k/siglip2_b16/concepts.safetensors"


@pytest.mark.parametrize(
    ("name", "evaluation", "message"),
    [
        ("capdec_coco", "flickr30k_tt", "takes nothing from captions .* use --eval-on flickr30k$"),
        ("pcm_coco", "coco_tt", "takes nothing from captions of data/coco; use --eval-on coco$"),
    ],
)
def test_target_texts_that_a_captioner_does_not_read_are_refused(name, evaluation, message):
    with pytest.raises(UserError, match=message):
        apply_evaluation(load_config(name), evaluation)


def test_a_config_without_test_images_is_refused():
    cfg = load_config("pcm_coco")
    cfg.test_dataloader = None
    with pytest.raises(UserError, match=r"needs a config with test_dataloader\.dataset\.store"):
        apply_evaluation(cfg, "flickr30k")


def test_each_file_is_an_evaluation():
    assert list_evaluations() == [
        *("coco", "coco_tt", "flickr30k", "flickr30k_tt", "nocaps", "toy_country")
    ]
    for path in Path(EVALUATIONS).glob("*.py"):
        assert {"store", "images", "modules"} <= Config.fromfile(path).evaluation.keys()


@pytest.mark.parametrize("store", ["../features/test_store", "/elsewhere/coco/test_store"])
def test_a_store_outside_of_the_data_set_is_refused(store):
    """The location of the other data set's store is unknown then."""
    cfg = load_config("pcm_coco")
    cfg.test_dataloader.dataset.store = store
    with pytest.raises(UserError, match="is not in root=`data/coco`"):
        apply_evaluation(cfg, "flickr30k")


def test_modules_are_changed_by_their_class():
    cfg, expected = load_config("pcm_coco"), load_config("pcm_coco", "flickr30k")
    cfg.model.neck.type = "PCMMixup"  # resolved in the default scope
    cfg.default_scope = "pcm_plugin"
    apply_evaluation(cfg, "flickr30k")
    assert cfg.model.neck.concepts == expected.model.neck.concepts


def test_files_of_the_other_data_set_are_created_from_its_own_captions():
    cfg = load_config("pcm_custom", "coco")
    for path, command in missing_files(cfg).items():
        if path.startswith("data/coco"):
            assert "make-dataset" not in command
