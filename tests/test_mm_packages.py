"""The check of mmengine, mmpretrain and mmcv, in environments with some of them only."""

import os
import subprocess
import sys
from pathlib import Path

import packaging
import pytest

from pcm_plugin.mm_packages import _REQUIREMENTS, MMPackage, install_command
from tests.test_engine.test_packaging import requirements

ROOT = Path(__file__).parents[1]
STATE = (
    "from pcm_plugin.mm_packages import *; print([(p.version, p.problem) for p in mm_packages()])"
)
REQUIRE = "from pcm_plugin.mm_packages import *; require_mm_packages()"

MM = {"mmengine": "0.10.7", "mmpretrain": "1.2.0", "mmcv-lite": "2.2.0"}
ONEDL = {"onedl-mmengine": "0.10.12", "onedl-mmpretrain": "1.3.6", "onedl-mmcv": "2.3.6"}


def without(installed, *names):
    return {name: version for name, version in installed.items() if name not in names}


def run(folder, installed, *arguments):
    """Run Python where only these distributions, this package and packaging are installed."""
    folder.mkdir(exist_ok=True)
    for name, package in (
        ("packaging", packaging.__path__[0]),
        ("pcm_plugin", ROOT / "pcm_plugin"),
    ):
        (folder / name).symlink_to(package)
    for distribution, version in installed.items():
        package = folder / distribution.removeprefix("onedl-").split("-")[0]
        package.mkdir(exist_ok=True)  # as pip overwrites a distribution by another one
        (package / "__init__.py").touch()
        fork = distribution.startswith("onedl-")
        text = f"version({distribution!r})" if fork else repr(version)
        imports = "from importlib.metadata import version\n" if fork else ""
        (package / "version.py").write_text(f"{imports}__version__ = {text}\n")
        info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: {distribution}\nVersion: {version}\n")
    return subprocess.run(
        [sys.executable, "-S", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )


def last_line(done):
    assert done.returncode != 0
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("installed", [MM, ONEDL, {**without(MM, "mmcv-lite"), "mmcv": "2.0.1"}])
def test_a_complete_environment_is_accepted(tmp_path, installed):
    done = run(tmp_path / "site", installed, "-c", f"{REQUIRE}\n{STATE}")
    assert done.stdout.strip() == str([(version, None) for version in installed.values()])


@pytest.mark.parametrize(
    ("installed", "version"),
    [({**MM, "mmengine-lite": "0.9.1"}, "0.9.1"), ({"mmengine": "0.9.1", **ONEDL}, "0.10.12")],
)
def test_the_version_is_that_of_the_distribution_installed_last(tmp_path, installed, version):
    done = run(tmp_path / "site", installed, "-c", STATE)
    assert done.stdout.startswith(f"[('{version}', ")


@pytest.mark.parametrize(
    ("installed", "problem", "command"),
    [
        (without(MM, "mmpretrain"), "mmpretrain is not", "pip install 'mmpretrain>=1.2.0'"),
        (without(MM, "mmcv-lite"), "mmcv is not installed", "pip install 'mmcv-lite>=2.0'"),
        (
            {**MM, "mmengine": "0.9.1"},
            "mmengine 0.9.1 is too old",
            "pip install 'mmengine>=0.10.4'",
        ),
        (
            {**without(MM, "mmcv-lite"), "mmcv-full": "1.7.2"},
            "mmcv 1.7.2 is too old",
            "pip uninstall -y mmcv-full && pip install 'mmcv-lite>=2.0'",
        ),
        (
            without(ONEDL, "onedl-mmpretrain", "onedl-mmcv"),
            "mmpretrain is not installed, mmcv is not installed",
            "pip install 'onedl-mmpretrain>=1.3.6' 'onedl-mmcv>=2.3.6'",
        ),
    ],
)
def test_the_error_names_the_packages_and_the_command(tmp_path, installed, problem, command):
    message = last_line(run(tmp_path / "site", installed, "-c", REQUIRE))
    assert message.startswith("pcm_plugin.errors.MissingPackageError: pcm_plugin requires ")
    assert problem in message
    assert f"Run `{command}" in message


def test_without_any_package_the_error_explains_the_extras(tmp_path):
    message = last_line(run(tmp_path / "site", {}, "-c", "import pcm_plugin.apis"))
    assert "pip install 'pcm-plugin[mm,mmcv-lite]'" in message
    assert "pip install 'pcm-plugin[onedl]'" in message
    assert "mim install mmcv" in message


@pytest.mark.parametrize(
    "module",
    [
        *("apis", "datasets", "engine.noam", "evaluation", "models", "registry", "structures"),
        *("synthesis.pipeline.recipes", "visualization"),
    ],
)
def test_each_package_checks_before_it_imports(tmp_path, module):
    done = run(tmp_path / "site", {}, "-c", f"import pcm_plugin.{module}")
    assert "pip install 'pcm-plugin[mm,mmcv-lite]'" in last_line(done)


def test_the_package_and_the_help_need_none_of_them(tmp_path):
    assert run(tmp_path / "a", {}, "-c", "import pcm_plugin").returncode == 0
    assert "caption" in run(tmp_path / "b", {}, "-m", "pcm_plugin", "--help").stdout


# Without the check, `train` fails in the import of mmpretrain, `build-vocabulary` in another one.
@pytest.mark.parametrize("words", ["train x.py", "build-vocabulary captions.txt --out v"])
def test_a_command_prints_the_message_only(tmp_path, words):
    installed = without(MM, "mmpretrain")
    done = run(tmp_path / "site", installed, "-m", "pcm_plugin", *words.split())
    assert done.returncode == 1
    assert done.stderr.startswith("pcm_plugin requires")
    assert "pip install 'mmpretrain>=1.2.0'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("missing", ["mmcv", "mmpretrain"])
@pytest.mark.parametrize(
    "code",
    [
        "from mmengine.registry import MODELS; MODELS.build(dict(type='pcm_plugin.PCMMixup'))",
        "from mmengine.config import Config; Config(dict()).fromfile('config.py')",
    ],
)
def test_mmengine_shows_the_message(tmp_path, missing, code):
    (tmp_path / "config.py").write_text("custom_imports = dict(imports=['pcm_plugin.models'])\n")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules[{missing!r}] = None; {code}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode != 0
    assert "MissingPackageError: pcm_plugin requires mmengine>=0.10.4, mmpretrain" in done.stderr
    assert f": {missing} is not installed. Run `pip install" in done.stderr


def test_the_requirements_are_those_of_the_extras():
    mm, onedl = zip(*_REQUIREMENTS.values(), strict=True)
    for lists, extras in ((mm, ("mm", "mmcv-lite")), (onedl, ("onedl",))):
        wanted = {f"{n}{bound}" for extra in extras for n, bound in requirements(extra).items()}
        assert {requirement for entry in lists for requirement in entry} == wanted


def test_nothing_is_installed_where_nothing_is_missing():
    assert install_command([MMPackage("mmcv", "2.0", "2.2.0", ("mmcv",))]) is None
    assert install_command([MMPackage("mmcv", "2.0", "unknown", ())]) is None


@pytest.mark.parametrize(
    ("installed", "transformers", "expected"),
    [
        (MM, "5.24.0", "pip install 'transformers>=4.45,<4.52', which is the extra 'blip'"),
        (MM, "4.52.0", "The models of mmpretrain require another version"),
        (MM, "4.51.3", "run: python -c 'import mmpretrain.models'"),
        (ONEDL, "4.52.4", "pip install 'transformers>=4.53,<5', which is the extra 'onedl-blip'"),
        (ONEDL, "5.0.0", "The models of onedl-mmpretrain require another version"),
        (ONEDL, "4.57.6", "run: python -c 'import mmpretrain.models'"),
    ],
)
def test_why_mmpretrains_models_cannot_be_imported(installed, transformers, expected, tmp_path):
    code = "from pcm_plugin.mm_packages import *; print(explain_models_error(TypeError('why')))"
    done = run(tmp_path / "site", {**installed, "transformers": transformers}, "-c", code)
    assert f"with transformers {transformers} (TypeError: why). " in done.stdout
    assert expected in done.stdout


BROKEN = """
import sys, types
sys.modules["mmpretrain.models"] = None  # as importing it fails
from mmengine.config import Config
import pcm_plugin.models, pcm_plugin.datasets, pcm_plugin.evaluation, pcm_plugin.engine
Config.fromfile("configs/pcm_coco.py")
print("the rest works")
"""


def test_everything_else_works_without_mmpretrain_models(tmp_path):
    code = BROKEN + 'Config.fromfile("configs/blip/pcm_blip_coco.py")'
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "the rest works" in done.stdout
    assert "mmpretrain's models (BLIP, BLIP-2) cannot be imported" in done.stderr.splitlines()[-1]
    # The command prints one line.
    wrapper = tmp_path / "run.py"
    wrapper.write_text(
        "import sys\nsys.modules['mmpretrain.models'] = None\n"
        "from pcm_plugin import cli; cli.main(['train', 'configs/blip/pcm_blip_coco.py'])\n"
    )
    done = subprocess.run([sys.executable, str(wrapper)], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("mmpretrain's models (BLIP, BLIP-2) cannot be imported")
    assert "Traceback" not in done.stderr
