"""Configs are found by file and by name, in a checkout and in an installed wheel."""

import pytest

from pcm_plugin.engine.config_files import find_config, list_configs, resolve_config
from pcm_plugin.errors import MissingFileError
from pcm_plugin.packaged_files import CONFIGS
from tests.site_packages import ROOT, build_site, run_in_site


@pytest.mark.parametrize(
    "name",
    [
        "configs/syntic/syntic_toy.py",
        "syntic/syntic_toy.py",
        "syntic_toy.py",
        "syntic_toy",
        "pcm_plugin::syntic/syntic_toy.py",
        "pcm_plugin::syntic_toy.py",
    ],
)
def test_a_config_of_the_package_is_found_from_another_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = ROOT / "configs" / "syntic" / "syntic_toy.py"
    assert resolve_config(name) == path
    assert find_config("syntic_toy") == resolve_config(name)


def test_a_file_comes_before_a_config_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pcm_toy.py").touch()
    assert str(resolve_config("pcm_toy.py")) == "pcm_toy.py"


@pytest.mark.parametrize(
    "name", ["none.py", "/configs/pcm_toy.py", "elsewhere/pcm_toy.py", "mmpretrain::pcm_toy.py"]
)
def test_a_missing_config_is_reported(name):
    with pytest.raises(MissingFileError, match=f"config {name} does not exist: .*pass a file, or"):
        resolve_config(name)


def test_the_nearest_names_are_suggested():
    with pytest.raises(MissingFileError, match=r"did you mean (.* or )*pcm_coco"):
        resolve_config("pcm_cocco.py")
    with pytest.raises(MissingFileError, match=r"did you mean (.* or )*syntic_coco"):
        find_config("syntic_cocco")


def test_a_checkout_uses_its_own_configs():
    assert CONFIGS.resolve() == ROOT / "configs"
    assert list_configs()["pcm_toy"].resolve() == ROOT / "configs" / "pcm_toy.py"


INSTALLED = """
import os
from mmengine.config import Config
from pcm_plugin.engine.config_files import list_configs, resolve_config
from pcm_plugin.packaged_files import CONFIGS
from pcm_plugin.synthesis.pipeline.recipes import load_recipe

site = os.environ["PYTHONPATH"]
assert str(CONFIGS) == f"{site}/pcm_plugin/.mim/configs"
cfg = Config.fromfile(resolve_config("pcm_toy.py"))
for path in (cfg.clip.model_name.removeprefix("local-dir:"), cfg.entities):
    assert os.path.exists(path), path
recipe = load_recipe("toy")
assert os.path.isdir(recipe.generate.pipeline)
assert recipe.generate.pipeline.startswith(site)
print(len(list_configs()))
"""


def test_an_installed_package_brings_its_configs(tmp_path):
    site = build_site(tmp_path / "site")
    (tmp_path / "work").mkdir()
    done = run_in_site(site, tmp_path / "work", "-c", INSTALLED)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(list_configs())
