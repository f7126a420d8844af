"""Content and metadata of the wheel, built from a copy of the checkout."""

import email
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
FOLDERS = ("pcm_plugin", "configs", "tools")
FILES = ("setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
FILES += ("CHANGELOG.md", "CITATION.cff", "model-index.yml")
MIM = "pcm_plugin/.mim"
METAFILE = "pcm_plugin/model_zoo/metafile.yml"

pytest.importorskip("build")


def files_of(folder):
    return {
        path.relative_to(folder).as_posix()
        for path in Path(folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".mim" not in path.parts
    }


def build(folder, out, *options):
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, *options, folder]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkout")
    for name in FOLDERS:
        ignore = shutil.ignore_patterns("__pycache__", ".mim")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def built(copy, tmp_path_factory):
    """Return the folder of the sdist and of the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    build(copy, out)
    return out


@pytest.fixture(scope="module")
def wheel(built):
    with zipfile.ZipFile(*built.glob("*.whl")) as file:
        yield file


def test_the_wheel_has_each_file_of_the_package_and_nothing_else(wheel):
    expected = {
        f"pcm_plugin/{name}": ROOT / "pcm_plugin" / name for name in files_of(ROOT / "pcm_plugin")
    }
    for folder in ("configs", "tools"):
        expected |= {
            f"{MIM}/{folder}/{name}": ROOT / folder / name
            for name in files_of(ROOT / folder)
            if not name.startswith("dev/")
        }
    for name in ("model-index.yml", METAFILE):
        expected[f"{MIM}/{name}"] = ROOT / name
    assert "pcm_plugin/toyworld/assets/diffusion/unet/config.json" in expected
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == set(expected)
    assert all(wheel.read(name) == path.read_bytes() for name, path in expected.items())


def test_the_paths_of_the_model_index_exist(wheel):
    names = set(wheel.namelist())
    imports = yaml.safe_load(wheel.read(f"{MIM}/model-index.yml"))["Import"]
    assert METAFILE in imports
    configs = []
    for path in imports:
        index = yaml.safe_load(wheel.read(f"{MIM}/{path}"))
        configs += [model["Config"] for model in index["Models"]]
        readmes = [entry["README"] for entry in index["Collections"] if "README" in entry]
        assert all(f"{MIM}/{readme}" in names for readme in readmes)
    assert "configs/pcm_coco.py" in configs
    # `mim` looks in both folders.
    assert all({f"{MIM}/{path}", f"pcm_plugin/{path}"} & names for path in configs)


def test_the_metadata(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    metadata = email.message_from_bytes(wheel.read(name))
    required = [Requirement(line) for line in metadata.get_all("Requires-Dist")]
    default = [entry.name for entry in required if entry.marker is None]
    assert "torch" in default
    assert not [entry for entry in default if entry.removeprefix("onedl-").startswith("mm")]
    assert {"mm", "mmcv-lite", "onedl", "blip", "onedl-blip"} <= set(
        metadata.get_all("Provides-Extra")
    )
    python = "Programming Language :: Python :: 3."
    versions = [c.removeprefix(python) for c in metadata.get_all("Classifier") if python in c]
    assert versions == ["10", "11", "12", "13"]
    for key in ("Author", "Keywords", "Home-page", "Project-URL", "License-File"):
        assert metadata[key], key
    entry_points = wheel.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert "pcm = pcm_plugin.cli:main" in entry_points


def test_a_second_build_gives_the_same_wheel(copy, built, tmp_path):
    """The second one is built from the checkout, the first one from the sdist."""
    before = files_of(copy)
    # A file of an earlier build must not get into the wheel.
    stale = copy / "build" / "lib" / MIM / "configs" / "stale.py"
    stale.parent.mkdir(parents=True, exist_ok=True)
    stale.touch()
    build(copy, tmp_path, "--wheel")
    (first,), (second,) = built.glob("*.whl"), tmp_path.glob("*.whl")
    assert second.name == first.name
    assert second.read_bytes() == first.read_bytes()
    added = {PurePosixPath(name).parts[0] for name in files_of(copy) - before}
    assert added <= {"build", "pcm_plugin.egg-info"}  # ignored by git


def test_the_sdist_has_the_configs_and_no_tests(built):
    with tarfile.open(*built.glob("*.tar.gz")) as archive:
        names = {
            PurePosixPath(*PurePosixPath(name).parts[1:]).as_posix() for name in archive.getnames()
        }
    assert {"configs/pcm_coco.py", "tools/train.py", "setup.py", "CITATION.cff"} <= names
    assert not [name for name in names if name.startswith(("tests", "docs", "benchmarks"))]


def test_an_editable_install_links_the_folders(copy, tmp_path):
    code = (
        "import setuptools.build_meta as backend, os\n"
        f"os.chdir({str(copy)!r})\n"
        f"backend.build_editable({str(tmp_path)!r})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    mim = copy / "pcm_plugin" / ".mim"
    assert (mim / "configs").is_symlink()
    for name in ("configs/pcm_coco.py", "tools/train.py", "model-index.yml", METAFILE):
        assert (mim / name).resolve() == (copy / name).resolve()
