"""Checks of the environment: libraries, GPU, Java, browser, folders."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pcm_plugin.commands.probes import Outcome, run_probes
from pcm_plugin.commands.repairs import (
    pip_install,
    repair_command,
    requirements,
    version_problem,
)
from pcm_plugin.mm_packages import (
    MODELS_TRANSFORMERS,
    MMPackage,
    install_command,
    installed_version,
    mm_packages,
    reinstall_command,
    uses_forks,
)

CORE = "Core: training and captioning, data engine, scores"
OPTIONAL = "Optional libraries"
MACHINE = "Machine"


class Check(NamedTuple):
    """One line of the report.

    Attributes:
        group: :data:`CORE`, :data:`OPTIONAL` or :data:`MACHINE`.
        name: What was checked.
        found: What is there, such as a version; ``''`` for nothing.
        problem: Why it does not work. Defaults to None: it works.
        repair: The command that repairs it. Defaults to None.
        works_without: What works without it, or what does not. Defaults to None.
    """

    group: str
    name: str
    found: str
    problem: str | None = None
    repair: str | None = None
    works_without: str | None = None


class Library(NamedTuple):
    """A library that is imported.

    Attributes:
        distribution: Its name for pip.
        code: Code that imports the parts that this package uses.
    """

    distribution: str
    code: str

    @property
    def module(self) -> str:
        """Name of the module that is imported first."""
        return self.code.split()[1]


CORE_LIBRARIES = [
    Library("numpy", "import numpy"),
    Library("packaging", "import packaging.version"),
    Library("torch", "import torch"),
    Library("torchvision", "import torchvision"),
    Library("pillow", "import PIL.Image"),
    Library("safetensors", "import safetensors.torch"),
    Library("filelock", "import filelock"),
    Library("tqdm", "import tqdm"),
    Library("matplotlib", "import matplotlib.pyplot"),
    Library("jinja2", "import jinja2"),
    Library("ijson", "import ijson"),
    Library("textblob", "import textblob.en"),
    Library("pycocoevalcap", "import pycocoevalcap.cider.cider"),
    Library("huggingface_hub", "import huggingface_hub"),
    Library("transformers", "from transformers import AutoTokenizer, CLIPTextModel"),
    Library("accelerate", "import accelerate"),
    Library("timm", "import timm"),
    Library("open_clip_torch", "import open_clip"),
    Library("diffusers", "from diffusers import StableDiffusionPipeline"),
]
MM_CODE = {
    "mmengine": "import mmengine.runner",
    "mmcv": "import mmcv",
    "mmpretrain": "import mmpretrain.structures",
}
PLUGIN_CODE = (
    "import pcm_plugin.models, pcm_plugin.datasets, pcm_plugin.evaluation, pcm_plugin.engine\n"
    "from pcm_plugin.registry import MODELS\n"
    "MODELS.get('pcm_plugin.PCMNet')"
)
OPTIONAL_LIBRARIES = {
    Library("pyarrow", "import pyarrow.parquet"): "everything except Parquet files",
    Library("peft", "import peft"): "everything except LoRA weights of diffusion models",
    Library("gradio", "import gradio"): "everything except `pcm webui`",
    Library("selenium", "import selenium.webdriver"): "everything except tests of web pages",
}
_MODELS = "mmpretrain.models"
_PKG_RESOURCES = "pkg_resources"
_WITHOUT_MODELS = "everything except BLIP and BLIP-2"
_WITHOUT_PKG_RESOURCES = "everything except configs that inherit `mmpretrain::...`"
_GPU = """
import torch
cuda, hip = torch.version.cuda, torch.version.hip
names, why = [], None
# The driver counts GPUs even if torch cannot use them.
count = torch.cuda.device_count()
if cuda or hip:
    try:
        torch.cuda.init()
        devices = [torch.cuda.get_device_properties(index) for index in range(count)]
        names = [f"{device.name}, {device.total_memory / 2**30:.0f} GiB" for device in devices]
    except Exception as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
result = [names, count, f"CUDA {cuda}" if cuda else f"ROCm {hip}" if hip else None, why]
"""
_JAVA = """
from pcm_plugin.evaluation.java import missing_requirement
result = [missing_requirement(name) for name in ("METEOR", "SPICE")]
"""


def check_environment() -> list[Check]:
    """Check everything; takes as long as importing all libraries once."""
    probes = {library.distribution: library.code for library in CORE_LIBRARIES}
    probes |= {**MM_CODE, "pcm_plugin": PLUGIN_CODE, _PKG_RESOURCES: "import pkg_resources"}
    probes |= {_MODELS: "import mmpretrain.models", "gpu": _GPU, "java": _JAVA}
    probes |= {library.distribution: library.code for library in OPTIONAL_LIBRARIES}
    outcomes = run_probes(probes)
    packages = mm_packages()
    core = [
        *(_check_library(CORE, library, outcomes) for library in CORE_LIBRARIES),
        *(_check_mm_package(package, packages, outcomes) for package in packages),
    ]
    return [
        *core,
        _check_plugin(outcomes["pcm_plugin"], core),
        *_check_models(packages, outcomes),
        *_check_pkg_resources(packages, outcomes[_PKG_RESOURCES]),
        *(
            _check_library(OPTIONAL, library, outcomes, without)
            for library, without in OPTIONAL_LIBRARIES.items()
        ),
        _check_gpu(outcomes["gpu"], outcomes["torch"]),
        *_check_java(outcomes["java"]),
        _check_browser(),
        *_check_folders(),
    ]


def _check_library(
    group: str, library: Library, outcomes: Mapping[str, Outcome], without: str | None = None
) -> Check:
    name = library.distribution
    requirement = requirements().get(name.replace("_", "-"), name)
    version, error = installed_version(name), outcomes[name].error
    if error:
        repair = repair_command(name, library.module, error, requirement)
        return Check(group, name, version or "", error, repair, without)
    if problem := version_problem(name, requirement):
        return Check(group, name, version or "", problem, pip_install(requirement), without)
    return Check(group, name, version or "imported from a folder")


def _check_mm_package(
    package: MMPackage, packages: list[MMPackage], outcomes: Mapping[str, Outcome]
) -> Check:
    name, names = package.name, package.distributions
    found = " ".join(filter(None, [package.version, *(f"({n})" for n in names if n != name)]))
    # Versions cannot be compared then.
    if outcomes["packaging"].error and any(other.version for other in packages):
        error = outcomes[name].error
        return Check(CORE, name, found, error, "repair packaging first" if error else None)
    if package.problem:
        return Check(CORE, name, found, package.problem, install_command(packages))
    if len(names) > 1:
        problem = f"{' and '.join(names)} overwrite each other"
        return Check(CORE, name, found, problem, reinstall_command(package, packages))
    if error := outcomes[name].error:
        distribution = names[0] if names else name
        return Check(
            CORE, name, found, error, repair_command(distribution, name, error, distribution)
        )
    return Check(CORE, name, found)


def _check_plugin(outcome: Outcome, libraries: list[Check]) -> Check:
    if outcome.error is None:
        return Check(CORE, "pcm_plugin", "all packages can be imported")
    if any(check.problem for check in libraries):
        problem = "cannot be imported until the libraries above are repaired"
        return Check(CORE, "pcm_plugin", "", problem)
    return Check(CORE, "pcm_plugin", "", f"cannot be imported: {outcome.error}")


def _check_models(packages: list[MMPackage], outcomes: Mapping[str, Outcome]) -> Iterator[Check]:
    error = outcomes[_MODELS].error
    mmpretrain = next(package for package in packages if package.name == "mmpretrain")
    if outcomes["mmpretrain"].error:
        return
    version = installed_version("transformers")
    found = f"with transformers {version}" if version else ""
    if error is None:
        yield Check(OPTIONAL, _MODELS, found)
        return
    distribution = next(iter(mmpretrain.distributions), "mmpretrain")
    requirement, _ = MODELS_TRANSFORMERS[distribution]
    repair = pip_install(requirement)
    if version and version_problem("transformers", requirement) is None:
        repair = repair_command(distribution, "mmpretrain", error, distribution)
    yield Check(OPTIONAL, _MODELS, found, error, repair, _WITHOUT_MODELS)


def _check_pkg_resources(packages: list[MMPackage], outcome: Outcome) -> Iterator[Check]:
    engine = next(package for package in packages if package.name == "mmengine")
    # From 0.11, mmengine does not use it any more.
    old = re.match(r"0\.(\d+)", engine.version or "")
    if old is None or int(old[1]) >= 11 or uses_forks(packages):
        return
    version = f"setuptools {installed_version('setuptools') or 'is not installed'}"
    if outcome.error is None:
        yield Check(OPTIONAL, _PKG_RESOURCES, version)
    else:
        repair = pip_install("setuptools<81")
        yield Check(
            OPTIONAL, _PKG_RESOURCES, version, outcome.error, repair, _WITHOUT_PKG_RESOURCES
        )


def _check_gpu(outcome: Outcome, torch: Outcome) -> Check:
    without = "everything, on the CPU; generating images takes hours there"
    if torch.error:
        return Check(MACHINE, "GPU", "not checked, since torch cannot be imported")
    version = f"torch {installed_version('torch')}"
    # The code has no result if the driver ends the process or does not answer.
    names, count, platform, why = outcome.result or ([], None, version, outcome.error)
    if names:
        return Check(MACHINE, "GPU", "; ".join(names) + f", {platform}")
    if count == 0 and shutil.which("nvidia-smi") is None:
        return Check(MACHINE, "GPU", "none: no NVIDIA driver (nvidia-smi), so the CPU is used")
    if platform is None:
        problem = f"{version} is built without CUDA"
        repair = (
            "pip install --force-reinstall torch torchvision --index-url https://pypi.org/simple"
        )
    else:
        problem = f"torch cannot use it: {why or 'no device'}"
        program = "rocminfo" if platform.startswith("ROCm") else "nvidia-smi"
        repair = (
            f"run `{program}`: the driver must list a GPU and support {platform}; for an older "
            "driver, take torch from https://pytorch.org/get-started/previous-versions"
        )
    return Check(MACHINE, "GPU", "", problem, repair, without)


def _check_java(outcome: Outcome) -> Iterator[Check]:
    without = "all scores except METEOR and SPICE"
    java = shutil.which("java")
    if java is None:
        repair = "apt-get install default-jre-headless"
        yield Check(MACHINE, "Java", "", "`java` is not on the PATH", repair, without)
        return
    yield Check(MACHINE, "Java", _first_line([java, "-version"]))
    if outcome.error is None:
        for name, missing in zip(("METEOR", "SPICE"), outcome.result, strict=True):
            problem, _, repair = (missing or "").partition(": ")
            if missing:
                yield Check(MACHINE, name, "", problem, repair, f"all scores except {name}")
            else:
                yield Check(MACHINE, name, "its files are installed")


def _check_browser() -> Check:
    programs = ("chromium", "chromedriver")
    missing = [name for name in programs if shutil.which(name) is None]
    if not missing:
        return Check(MACHINE, "browser", _first_line(["chromium", "--version"]))
    problem = f"{' and '.join(missing)} not found"
    repair = "apt-get install chromium chromium-driver"
    return Check(MACHINE, "browser", "", problem, repair, "everything except tests of web pages")


def _check_folders() -> Iterator[Check]:
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
    folders = {
        "model cache": (cache, "export HF_HOME=FOLDER", "everything with local model files"),
        "temporary folder": (Path(tempfile.gettempdir()), "export TMPDIR=FOLDER", None),
    }
    for name, (folder, repair, without) in folders.items():
        place = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(place).free / 2**30
        if os.access(place, os.W_OK):
            yield Check(MACHINE, name, f"{folder}, {free:.0f} GiB free")
        else:
            problem = f"{folder} cannot be written"
            yield Check(MACHINE, name, "", problem, f"{repair} (a writable folder)", without)


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]}: {error}"
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else command[0]
