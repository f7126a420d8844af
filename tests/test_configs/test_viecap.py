"""ViECap's settings against its released code (FeiElysia/ViECap; the files are in the comments)."""

import re
from functools import reduce

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS

from pcm_plugin.commands.build_commands import check_inputs
from pcm_plugin.commands.paper_tables import TABLES
from pcm_plugin.errors import MissingFileError
from pcm_plugin.formats.word_list import read_word_list
from tests.configs import load_config

PUBLISHED = {
    # main.py and scripts/train_coco.sh
    "train_dataloader.batch_size": 80,
    "auto_scale_lr.base_batch_size": 80,
    "optim_wrapper.optimizer.type": "AdamW",
    "optim_wrapper.optimizer.lr": 2e-5,
    "optim_wrapper.optimizer.weight_decay": 0,
    "optim_wrapper.optimizer.eps": 1e-6,
    "model.freeze_lm": None,
    "model.language_model": "openai-community/gpt2",
    "model.entity_prompt.entity_dropout": 0.4,
    "model.loss.label_smoothing": 0.0,
    "model.loss.gamma_type": "none",
    # utils.py
    "model.entity_prompt.template": "There are {} in image.",
    "model.entity_prompt.entity_aliases.woman": "person",
    # ClipCap.py
    "model.mapper.prefix_length": 10,
    "model.mapper.num_layers": 8,
    "model.mapper.num_heads": 8,
    "model.mapper.qkv_bias": False,
    # retrieval_categories.py, validation.py
    "model.entity_prompt.top_concepts": 3,
    "model.entity_prompt.temperature": 0.01,
    # search.py
    "model.full_sentences": True,
    "model.decoding.length_penalty": 1.0,
    "model.decoding.max_len": 64,
}
OWN_NECK = {
    "model.neck.noise_var": 0.016,  # main.py
    "model.neck.num_tokens": 10,  # ClipCap.py
    "model.neck.linear": True,
    "train_dataloader.dataset.features": "text",
    "model.loss.use_clip_weight": False,
}
CATEGORIES = "data/coco/vit_b32/categories.safetensors"
VINVL = "data/vinvl/vit_b32/concepts.safetensors"
# Entities, threshold and beams: scripts/eval_*.sh, and what README.md adds to them.
BY_DATA = {
    ("coco", None): (CATEGORIES, 0.4, 5),
    ("flickr30k", None): (VINVL, 0.3, 1),
    ("coco", "nocaps"): (VINVL, 0.2, 5),
    ("coco", "flickr30k"): (VINVL, 0.2, 1),
    ("flickr30k", "coco"): (CATEGORIES, 0.2, 1),
}


def get(cfg, key):
    return reduce(lambda part, k: part.get(k), key.split("."), cfg)


@pytest.mark.parametrize(("source", "evaluation"), BY_DATA)
def test_settings_are_those_of_the_released_code(source, evaluation):
    cfg = load_config(f"prefix_text_{source}", evaluation)
    wanted = PUBLISHED | OWN_NECK
    assert {key: get(cfg, key) for key in wanted} == wanted
    assert len(cfg.model.entity_prompt.entity_aliases) == 18
    prompt, beam_size = cfg.model.entity_prompt, cfg.model.decoding.beam_size
    assert (prompt.concepts, prompt.concept_threshold, beam_size) == BY_DATA[source, evaluation]
    assert cfg.train_cfg.max_epochs == (30 if source == "flickr30k" else 15)
    entities = f"data/{source}/vit_b32/concepts.safetensors" if evaluation is None else None
    assert prompt.caption_entities == entities


@pytest.mark.parametrize("name", ["prefix", "prefix_pcm", "prefix_pcm_vse"])
@pytest.mark.parametrize("evaluation", [None, "nocaps"])
def test_captioners_on_synthetic_images_search_and_prompt_as_viecap(name, evaluation):
    cfg = load_config(f"{name}_coco", evaluation)
    wanted = dict(PUBLISHED)
    if name == "prefix_pcm_vse":  # an MLP
        wanted = {k: v for k, v in wanted.items() if not re.search("num_layers|num_heads|qkv", k)}
    assert {key: get(cfg, key) for key in wanted} == wanted
    prompt, beam_size = cfg.model.entity_prompt, cfg.model.decoding.beam_size
    assert (prompt.concepts, prompt.concept_threshold, beam_size) == BY_DATA["coco", evaluation]


def test_the_learning_rate_is_the_published_one():
    """get_linear_schedule_with_warmup of transformers, 5,000 of 20,000 iterations."""
    cfg = Config.fromfile("configs/prefix/prefix_text_coco.py")
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=2e-5)
    schedulers = []
    for part in cfg.param_scheduler:
        assert not part.by_epoch
        part.setdefault("end", 20_000)  # as MMEngine's runner does
        schedulers.append(PARAM_SCHEDULERS.build(part, default_args=dict(optimizer=optimizer)))
    rates = []
    for _ in range(20_000):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    steps = np.arange(20_000)
    published = 2e-5 * np.minimum(steps / 5000, (20_000 - steps) / 15_000)
    np.testing.assert_allclose(rates, published, atol=2e-5 / 5000 * 1.01)


@pytest.mark.parametrize(
    ("source", "evaluation"), sorted(BY_DATA.keys() - {("flickr30k", None)}, key=str)
)
def test_missing_entities_are_made_of_the_published_lists(source, evaluation):
    cfg = load_config(f"prefix_text_{source}", evaluation)
    with pytest.raises(MissingFileError) as caught:
        check_inputs(cfg, ["test"])
    entities = {CATEGORIES: "configs/words/coco_categories.txt"}
    entities[VINVL] = "data/vinvl/vgcocooiobjects_v1_class2ind.json"
    path = cfg.model.entity_prompt.concepts
    command = f"pcm build-concepts {entities[path]} --templates simple --model"
    found = re.search(rf"missing: {path} .*\n  made by: (.*)", str(caught.value))
    assert found[1].startswith(command)
    assert found[1].endswith(f" --out {path}")


def test_categories_of_coco():
    words = read_word_list("configs/words/coco_categories.txt")
    assert len(words) == 80
    assert {"person", "traffic light", "toothbrush"} < set(words)


def test_word_lists_in_json(tmp_path):
    """The class names of VinVL are the keys of a JSON object."""
    path = tmp_path / "class2ind.json"
    path.write_text('{"flying disc": 1, "dog": 2, "dog ": 3, "power plugs and sockets": 4}')
    assert read_word_list(path) == ["flying disc", "dog", "power plugs and sockets"]
    path.write_text('["cat", "dog"]')
    assert read_word_list(path) == ["cat", "dog"]
    captions = '{"images": [{"id": 1}], "annotations": [{"image_id": 1, "caption": "a cat"}]}'
    long, numbers = '["a cat on a mat"]', '{"1": "cat", "2": "dog"}'
    for wrong in ('[{"name": "cat"}]', "3", "[]", "{}", '["cat"', captions, long, numbers):
        path.write_text(wrong)
        with pytest.raises(ValueError, match=r"class2ind\.json"):
            read_word_list(path)


def test_every_published_row_has_a_config():
    rows = {
        (row.training, row.eval_on)
        for table in ("in-domain", "cross-domain", "nocaps")
        for row in TABLES[table].rows
        if "ViECap" in row.title
    }
    assert {(f"prefix_text_{source}", evaluation) for source, evaluation in BY_DATA} <= rows
