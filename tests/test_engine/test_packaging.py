import configparser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def requirements(extra=None):
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    section = setup["options.extras_require"] if extra else setup["options"]
    lines = section[extra or "install_requires"].strip().splitlines()
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {requirement.name: requirement.specifier for requirement in parsed}


def test_packages_of_mm_are_required_by_extras_only():
    assert not [name for name in requirements() if name.removeprefix("onedl-").startswith("mm")]
    assert {"mmengine", "mmpretrain"} <= set(requirements("mm"))
    # With an installed mmcv, `mm` must not install mmcv-lite over it.
    assert not {"mmcv", "mmcv-lite"} & set(requirements("mm"))
    assert set(requirements("mmcv-lite")) == {"mmcv-lite"}
    assert set(requirements("onedl")) == {"onedl-mmengine", "onedl-mmpretrain", "onedl-mmcv"}


@pytest.mark.parametrize(
    ("torch", "torchvision"),
    [("2.1.2+cu121", "0.16.2+cu121"), ("2.4.1", "0.19.1"), ("2.12.0+cpu", "0.27.0+cpu")],
)
def test_common_torch_pairs_satisfy_the_requirements(torch, torchvision):
    assert torch in requirements()["torch"]
    assert torchvision in requirements()["torchvision"]


def test_only_the_blip_extras_bound_transformers():
    assert "5.24.0" in requirements()["transformers"]
    assert "4.51.3" in requirements("blip")["transformers"]
    assert "4.52.0" not in requirements("blip")["transformers"]
    assert "4.57.0" in requirements("onedl-blip")["transformers"]
    assert "5.0.0" not in requirements("onedl-blip")["transformers"]


@pytest.mark.parametrize(
    ("file", "extras"),
    [
        ("constraints/default.txt", ("mm", "mmcv-lite", "blip", "parquet", "test")),
        # mmpretrain's models do not work with this version of transformers.
        ("constraints/py312.txt", ("mm", "mmcv-lite", "parquet")),
    ],
)
def test_constraints_are_exact_and_within_the_ranges(file, extras):
    pins = {}
    for line in (ROOT / file).read_text().splitlines():
        if not line.startswith("#"):
            name, version = line.split("==")
            pins[name.lower().replace("_", "-")] = version
    wanted = dict(requirements())
    for extra in extras:
        wanted.update(requirements(extra))
    for name, specifier in wanted.items():
        assert pins[name.lower().replace("_", "-")] in specifier, name


@pytest.mark.parametrize(
    ("package", "folder", "example"),
    [
        ("toyworld", "assets", "diffusion/unet/config.json"),
        ("visualization", "templates", "report.html"),
    ],
)
def test_data_files_are_in_the_package(package, folder, example):
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    globs = setup["options.package_data"][f"pcm_plugin.{package}"].split(",")
    path = ROOT / "pcm_plugin" / package
    packaged = {file for glob in globs for file in path.glob(glob.strip()) if file.is_file()}
    assert packaged == {file for file in (path / folder).rglob("*") if file.is_file()}
    assert path / folder / example in packaged
