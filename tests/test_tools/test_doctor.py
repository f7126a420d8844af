"""`pcm doctor` in environments of stub modules, each with one defect, and in this environment."""

import configparser
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pcm_plugin.commands import doctor, environment_checks
from pcm_plugin.commands.environment_checks import CORE, CORE_LIBRARIES, OPTIONAL_LIBRARIES, Check
from pcm_plugin.commands.probes import Outcome, run_probes
from tests.site_packages import ROOT

TORCH = """
class cuda:
    device_count = lambda: {count}
    def init():
        {init}
    def get_device_properties(index):
        cuda.init()
        class properties:
            name, total_memory = "Stub GPU", 80 * 2**30
        return properties
class version:
    cuda, hip = {cuda!r}, {hip!r}
"""
NOT_FOUND = "raise ModuleNotFoundError(\"No module named '{}'\")"
MISMATCH = 'raise RuntimeError("operator torchvision::nms does not exist")'
PROGRAMS = ("java", "chromium", "chromedriver")


class Environment:
    """A folder of stub modules, and one of programs, that replace those of this machine."""

    def __init__(self, folder: Path):
        self.modules, self.programs = folder / "modules", folder / "programs"
        self.programs.mkdir(parents=True)
        self.modules.mkdir()
        for name in PROGRAMS:
            self.program(name, "echo version 1")
        config = configparser.ConfigParser()
        config.read(ROOT / "setup.cfg")
        required = [config["options"]["install_requires"]]
        required += config["options.extras_require"].values()
        lines = [line.strip() for text in required for line in text.splitlines()]
        lines = [f"Requires-Dist: {line}" for line in lines if re.match(r"(?!pcm-plugin)\w", line)]
        self.distribution("pcm_plugin", "0.1.0", "\n".join(lines))
        for library in [*CORE_LIBRARIES, *OPTIONAL_LIBRARIES]:
            word, module, *rest = library.code.split(maxsplit=2)
            self.distribution(library.distribution, "6.99" if module == "gradio" else "99.0")
            names = rest[0].removeprefix("import ").split(", ") if word == "from" else []
            self.module(module, "".join(f"{name} = 1\n" for name in names))
        self.gpu(None)
        self.distribution("torch", "2.12.0+cpu")
        self.distribution("transformers", "4.51.3")
        for name, version in {"mmengine": "0.10.7", "mmpretrain": "1.2.0"}.items():
            self.distribution(name, version)
            self.module(f"{name}/version", f"__version__ = '{version}'")
        self.distribution("mmcv-lite", "2.2.0")
        self.module("mmcv/version", "__version__ = '2.2.0'")
        for module in ("mmengine.runner", "mmpretrain.structures", "mmpretrain.models"):
            self.module(module)
        self.distribution("setuptools", "80.9.0")
        self.module("pkg_resources")
        packaging = importlib.util.find_spec("packaging").submodule_search_locations[0]
        shutil.rmtree(self.modules / "packaging")
        (self.modules / "packaging").symlink_to(packaging)

    def module(self, name: str, text: str = "") -> None:
        """Write the package ``a.b``, or the file of the module ``a/b``, and its parents."""
        *parents, last = name.replace("/", ".").split(".")
        folder = self.modules
        for parent in parents:
            folder = folder / parent
            folder.mkdir(exist_ok=True)
            (folder / "__init__.py").touch()
        if "/" in name:
            (folder / f"{last}.py").write_text(text)
        else:
            (folder / last).mkdir(exist_ok=True)
            (folder / last / "__init__.py").write_text(text)

    def distribution(self, name: str, version: str, more: str = "") -> None:
        """Write the metadata of a distribution."""
        self.uninstall(name)
        folder = self.modules / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n{more}")

    def uninstall(self, name: str) -> None:
        """Remove the metadata of a distribution."""
        for folder in self.modules.glob(f"{name.replace('-', '_')}-*.dist-info"):
            shutil.rmtree(folder)

    def remove(self, distribution: str, module: str) -> None:
        """Make a library look as if it were not installed."""
        self.uninstall(distribution)
        self.module(module, NOT_FOUND.format(module))

    def gpu(
        self, cuda: str | None, count: int = 0, init: str = "pass", hip: str | None = None
    ) -> None:
        """Write a torch for CUDA or ROCm; `init` is the code of `torch.cuda.init`."""
        self.module("torch", TORCH.format(cuda=cuda, hip=hip, count=count, init=init))

    def program(self, name: str, command: str) -> None:
        """Write a program."""
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{command}\n")
        path.chmod(0o755)

    def doctor(self, folder: Path) -> tuple[int, str]:
        """Return exit code and output of `pcm doctor`."""
        done = subprocess.run(
            # Without site-packages.
            [sys.executable, "-S", "-m", "pcm_plugin", "doctor"],
            cwd=folder,
            env={"PYTHONPATH": f"{self.modules}:{ROOT}", "PATH": str(self.programs)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stderr == ""
        return done.returncode, done.stdout


@pytest.fixture
def environment(tmp_path):
    return Environment(tmp_path / "environment")


def problems(report: str) -> dict[str, str]:
    """Return the lines of each problem, joined, by name."""
    found = {}
    name = ""
    for line in report.splitlines():
        if line[2:6] in ("ok  ", "FAIL", "no  "):
            name = "" if line[2:6] == "ok  " else line.split()[1]
        if name and line:
            found[name] = found.get(name, "") + line.strip() + "\n"
    return found


def test_stubs_have_no_defect(environment, tmp_path):
    _, report = environment.doctor(tmp_path)
    # The plugin itself does not work with stubs.
    assert problems(report).keys() - {"SPICE"} == {"pcm_plugin"}, report
    assert "ok    mmcv               2.2.0 (mmcv-lite)" in report
    assert "no NVIDIA driver" in report


def test_a_gpu_that_works_is_listed(environment, tmp_path):
    environment.gpu("12.6", count=2)
    _, report = environment.doctor(tmp_path)
    assert "ok    GPU                Stub GPU, 80 GiB; Stub GPU, 80 GiB, CUDA 12.6\n" in report


def _mm(environment, name, version, distribution=None):
    environment.distribution(distribution or name, version)
    environment.module(f"{name}/version", f"__version__ = '{version}'")


def _without_mm(environment):
    for name in ("mmengine", "mmpretrain", "mmcv"):
        shutil.rmtree(environment.modules / name)
    for name in ("mmengine", "mmpretrain", "mmcv-lite"):
        environment.uninstall(name)


def _forks(environment):
    for name, version in (("mmengine", "0.10.12"), ("mmpretrain", "1.3.6"), ("mmcv", "2.3.6")):
        environment.uninstall("mmcv-lite" if name == "mmcv" else name)
        _mm(environment, name, version, f"onedl-{name}")


def _module(name, text):
    return lambda environment: environment.module(name, text)


def _removed(distribution, module):
    return lambda environment: environment.remove(distribution, module)


def _without_packaging(environment):
    (environment.modules / "packaging").unlink()
    environment.remove("packaging", "packaging")


def _models_of_forks(environment):
    _forks(environment)
    environment.distribution("transformers", "5.1.0")
    environment.module("mmpretrain.models", "raise ImportError('cannot import name')")


def _models(environment):
    environment.distribution("transformers", "4.60.0")
    environment.module("mmpretrain.models", "raise ImportError('cannot import name')")


def _pair(torch):
    def change(environment):
        environment.distribution("torch", torch)
        environment.module("torchvision", MISMATCH)

    return change


def _gpu(cuda, count=0, init="pass", hip=None, programs=("nvidia-smi",)):
    def change(environment):
        environment.gpu(cuda, count, init, hip)
        for name in programs:
            environment.program(name, "")

    return change


def _installed(distribution, version, module):
    def change(environment):
        environment.distribution(distribution, version)
        environment.module(module, "raise RuntimeError('broken')")

    return change


NO_NUMPY_2 = "raise ImportError('A module that was compiled using NumPy 1.x cannot be run')"
NO_DEVICE = "raise RuntimeError('no CUDA-capable device is detected\\nmore')"
OLD_DRIVER = "raise RuntimeError('The NVIDIA driver on your system is too old')"
NO_LIBGL = "raise ImportError('libGL.so.1: cannot open shared object file: No such file')"
PYTORCH = "https://download.pytorch.org/whl"
DEFECTS = [
    ("torch", _removed("torch", "torch"), "No module named 'torch'", "pip install 'torch>=2.4'"),
    (
        "packaging",
        _without_packaging,
        "No module named 'packaging'",
        "pip install 'packaging>=24.0'\n",
    ),
    (
        "torchvision",
        _pair("2.12.0+cpu"),
        "operator torchvision::nms does not exist",
        f"pip install --force-reinstall --no-deps 'torchvision==0.27.*' --index-url {PYTORCH}/cpu",
    ),
    (
        "torchvision",
        _pair("2.4.1"),
        "operator torchvision::nms does not exist",
        "pip install --force-reinstall --no-deps 'torchvision==0.19.*'\n",
    ),
    (
        "mmengine",
        _without_mm,
        "mmengine is not installed",
        "pip install 'pcm-plugin[mm,mmcv-lite]'",
    ),
    (
        "mmengine",
        lambda environment: _mm(environment, "mmengine", "0.10.3"),
        "mmengine 0.10.3 is too old",
        "pip install 'mmengine>=0.10.4'",
    ),
    (
        "mmengine",
        lambda environment: environment.distribution("onedl-mmengine", "0.10.12"),
        "mmengine and onedl-mmengine overwrite each other",
        "pip uninstall -y mmengine onedl-mmengine && pip install 'onedl-mmengine>=0.10.12'\n",
    ),
    (
        "mmcv",
        lambda environment: environment.distribution("mmcv", "2.2.0"),
        "mmcv and mmcv-lite overwrite each other",
        "pip uninstall -y mmcv mmcv-lite && pip install 'mmcv-lite>=2.0'\n",
    ),
    ("mmcv", _module("mmcv", NO_LIBGL), "libGL.so.1: cannot open", "apt-get install libgl1"),
    (
        "mmpretrain.models",
        _models,
        "cannot import name",
        "pip install 'transformers>=4.45,<4.52'\nworks without it: everything except BLIP",
    ),
    (
        "mmpretrain.models",
        _models_of_forks,
        "cannot import name",
        "pip install 'transformers>=4.53,<5'",
    ),
    (
        "pkg_resources",
        _module("pkg_resources", NOT_FOUND.format("pkg_resources")),
        "No module named 'pkg_resources'",
        "pip install 'setuptools<81'\nworks without it: everything except configs",
    ),
    (
        "pycocoevalcap",
        _module("pycocoevalcap", NOT_FOUND.format("pkg_resources")),
        "No module named 'pkg_resources'",
        "pip install 'setuptools<81'",
    ),
    ("matplotlib", _module("matplotlib", NO_NUMPY_2), "NumPy 1.x", "pip install 'numpy<2'"),
    ("timm", _module("timm", NOT_FOUND.format("yaml")), "named 'yaml'", "pip install pyyaml"),
    (
        "filelock",
        lambda environment: environment.distribution("filelock", "3.20.0"),
        "3.20.0: filelock>=3.32 is required",
        "pip install 'filelock>=3.32'",
    ),
    (
        "diffusers",
        _installed("diffusers", "0.35.1", "diffusers"),
        "RuntimeError: broken",
        "pip install --force-reinstall --no-deps diffusers==0.35.1\n",
    ),
    (
        "diffusers",
        _installed("diffusers", "0.29.0", "diffusers"),
        "RuntimeError: broken",
        "pip install 'diffusers>=0.30'\n",
    ),
    (
        "torch",
        _installed("torch", "2.12.0+cpu", "torch"),
        "RuntimeError: broken",
        f"pip install --force-reinstall --no-deps torch==2.12.0 --index-url {PYTORCH}/cpu\n",
    ),
    (
        "torch",
        _installed("torch", "2.12.0+git1a2b3c4", "torch"),
        "RuntimeError: broken",
        "pip install --force-reinstall --no-deps torch==2.12.0\n",
    ),
    (
        "open_clip_torch",
        _module("open_clip", "import os; os.abort()"),
        "the process ended with signal 6",
        "pip install --force-reinstall --no-deps open_clip_torch==99.0\n",
    ),
    (
        "pyarrow",
        _removed("pyarrow", "pyarrow"),
        "No module named 'pyarrow'",
        "pip install 'pyarrow>=14'\nworks without it: everything except Parquet files",
    ),
    (
        "gradio",
        _removed("gradio", "gradio"),
        "No module named 'gradio'",
        "pip install 'gradio>=6.17.3,<7'\nworks without it: everything except `pcm webui`",
    ),
    (
        "Java",
        lambda environment: (environment.programs / "java").unlink(),
        "`java` is not on the PATH",
        "apt-get install default-jre-headless\nworks without it: all scores except METEOR",
    ),
    (
        "browser",
        lambda environment: (environment.programs / "chromedriver").unlink(),
        "chromedriver not found",
        "apt-get install chromium chromium-driver",
    ),
    (
        "GPU",
        _gpu(None),
        "torch 2.12.0+cpu is built without CUDA",
        "pip install --force-reinstall torch torchvision --index-url https://pypi.org/simple",
    ),
    (
        "GPU",
        _gpu("12.6", init=NO_DEVICE),
        "torch cannot use it: no CUDA-capable device is detected\n",
        "run `nvidia-smi`: the driver must list a GPU and support CUDA 12.6",
    ),
    (
        "GPU",
        _gpu("12.6", count=1, init=OLD_DRIVER, programs=()),
        "torch cannot use it: The NVIDIA driver on your system is too old",
        "run `nvidia-smi`: the driver must list a GPU and support CUDA 12.6",
    ),
    (
        "GPU",
        _gpu(None, count=1, init="raise RuntimeError", hip="6.4", programs=()),
        "torch cannot use it: RuntimeError",
        "run `rocminfo`: the driver must list a GPU and support ROCm 6.4",
    ),
    (
        "GPU",
        _gpu("12.6", count=1, init="import os; os.abort()"),
        "torch cannot use it: the process ended with signal 6",
        "run `nvidia-smi`: the driver must list a GPU and support torch 2.12.0+cpu",
    ),
]


@pytest.mark.parametrize(("name", "defect", "problem", "repair"), DEFECTS)
def test_a_defect_is_reported_with_its_repair(environment, tmp_path, name, defect, problem, repair):
    defect(environment)
    code, report = environment.doctor(tmp_path)
    found = problems(report)
    assert problem in found[name], report
    assert f"repair: {repair}" in found[name], report
    core = found[name].startswith("FAIL")
    assert code == 1  # stubs of torch are not enough for the plugin
    last = report.splitlines()[-1]
    assert last.startswith("The core does not work: ")
    assert (f" {name}" in last) == core
    others = found.keys() - {name, "pcm_plugin", "SPICE"}
    assert others <= {"mmpretrain", "mmcv", "GPU", "METEOR"}, report


def test_it_runs_without_any_library(tmp_path):
    done = subprocess.run(
        [sys.executable, "-S", "-m", "pcm_plugin", "doctor"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr == ""
    found = problems(done.stdout)
    assert {library.distribution for library in CORE_LIBRARIES} <= found.keys()
    assert "repair: pip install 'pcm-plugin[mm,mmcv-lite]'" in found["mmengine"]
    assert found["mmcv"].splitlines()[1] == "repair: as above"


def test_this_environment_works():
    done = subprocess.run(
        [sys.executable, "-m", "pcm_plugin", "doctor"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "The core works."
    assert f" {sys.version.split()[0]}," in done.stdout


def test_the_exit_code_depends_on_the_core_only(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pcm doctor"])
    check = Check(environment_checks.OPTIONAL, "gradio", "", "missing", "pip install gradio")
    monkeypatch.setattr(doctor, "check_environment", lambda: [Check(CORE, "torch", "2"), check])
    doctor.main()
    assert "The core works." in capsys.readouterr().out
    broken = check._replace(group=CORE)
    monkeypatch.setattr(doctor, "check_environment", lambda: [broken])
    with pytest.raises(SystemExit) as ended:
        doctor.main()
    assert ended.value.code == 1


def test_missing_files_of_spice_are_reported(environment, monkeypatch):
    monkeypatch.setenv("PATH", str(environment.programs))
    outcome = Outcome(None, [None, "SPICE needs x.jar: curl -LO x.zip"])
    java, meteor, spice = environment_checks._check_java(outcome)
    assert java.found == "version 1"
    assert meteor.problem is None
    assert (spice.problem, spice.repair) == ("SPICE needs x.jar", "curl -LO x.zip")


def test_folders_that_cannot_be_written_are_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    cache, temporary = environment_checks._check_folders()
    assert cache.problem == f"{tmp_path}/cache/hub cannot be written"
    assert cache.repair.startswith("export HF_HOME=")
    assert temporary.repair.startswith("export TMPDIR=")


def test_a_probe_that_does_not_finish_is_reported():
    outcomes = run_probes({"slow": "import time; time.sleep(60)", "fast": "result = 1"}, 5)
    assert outcomes == {"slow": Outcome("not finished after 5 s"), "fast": Outcome(None, 1)}
