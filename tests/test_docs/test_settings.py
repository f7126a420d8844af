"""The settings of configs that the documentation names exist."""

import copy
import re

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

from pcm_plugin.engine.cfg_options import parse_value
from pcm_plugin.engine.config_arguments import argument_problems
from pcm_plugin.engine.config_checks import check_options
from tests.test_docs.pages import PAGES, ROOT, code_blocks, inline_code, page_id

_SETTING = re.compile(
    r"(?<![\w.}])((?:model|(?:train|val|test)_(?:dataloader|evaluator|cfg)|optim_wrapper"
    r"|param_scheduler|default_hooks)(?:\.[a-z_]\w*)+)(?:=([^\s`'\"]+))?(?![\w./(])"
)
_FILE_SUFFIXES = (".pth", ".py", ".safetensors")


@pytest.fixture(scope="module")
def config():
    return Config.fromfile(ROOT / "configs" / "pcm_coco.py")


def settings_of(page):
    """Return the dotted keys of a page, with the values that they are given."""
    text = "\n".join([*code_blocks(page), *inline_code(page)])
    return [
        (key, value) for key, value in _SETTING.findall(text) if not key.endswith(_FILE_SUFFIXES)
    ]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_settings_exist(page, config):
    for key, value in settings_of(page):
        cfg = copy.deepcopy(config)
        options = {key: parse_value(value)}
        warnings = check_options(cfg, options)
        cfg.merge_from_dict(options)
        with DefaultScope.overwrite_default_scope(cfg.get("default_scope")):
            problems = [*argument_problems(cfg, ("train", "val", "test"))]
        assert [*warnings, *problems] == [], f"{page_id(page)}: {key}={value}"


def test_pages_contain_settings():
    assert len([setting for page in PAGES for setting in settings_of(page)]) > 20
