import configparser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

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
    [("2.4.1+cu121", "0.19.1+cu121"), ("2.12.0+cpu", "0.27.0+cpu")],
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


SETS = sorted(path.stem for path in (ROOT / "constraints").glob("*.txt"))


def pins(name):
    """Return the header of a constraints file, and its versions by normalized name."""
    lines = (ROOT / "constraints" / f"{name}.txt").read_text().splitlines()
    header = [line[2:].split(": ", 1) for line in lines if line.startswith("# ")]
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return dict(header), {canonicalize_name(package): version for package, version in pairs}


def requirements_of_set(name):
    header, _ = pins(name)
    wanted = dict(requirements())
    extras = header["extras"].split(",")
    if "dev" in extras:
        extras.append("test")
    for extra in extras:
        wanted |= {k: v & wanted.get(k, v) for k, v in requirements(extra).items()}
    wanted.pop("pcm-plugin", None)  # [test] of the extra `dev`
    return wanted


def test_the_sets_are_those_of_the_documentation():
    assert SETS == ["current", "default", "oldest", "onedl", "py312"]


@pytest.mark.parametrize("name", SETS)
def test_constraints_are_exact_and_within_the_ranges(name):
    header, versions = pins(name)
    for package, specifier in requirements_of_set(name).items():
        assert versions[canonicalize_name(package)] in specifier, package
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert header["python"] in SpecifierSet(setup["options"]["python_requires"])
    assert f"Python :: {header['python']}" in setup["metadata"]["classifiers"]


def test_the_oldest_set_has_the_lower_bounds():
    _, versions = pins("oldest")
    bounded = set()
    for package, specifier in requirements_of_set("oldest").items():
        for clause in specifier:
            if clause.operator == ">=":
                version = Version(versions[canonicalize_name(package)])
                assert version == Version(clause.version), package
                bounded.add(package)
    assert requirements().keys() <= bounded
