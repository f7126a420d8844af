"""Commands that repair libraries which cannot be imported."""

import importlib.metadata
import re
import shlex

from pcm_plugin.mm_packages import installed_version

# Debian's packages of shared libraries that wheels expect on the system.
_SHARED_LIBRARIES = {
    "libGL.so": "libgl1",
    "libgthread-2.0.so": "libglib2.0-0",
    "libgomp.so": "libgomp1",
}
_TORCH_INDEX = "https://download.pytorch.org/whl"


def requirements() -> dict[str, str]:
    """Return the requirements of this package and its extras by name, such as ``'timm>=1.0'``."""
    try:
        lines = importlib.metadata.requires("pcm-plugin") or []
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        return {}
    found = (re.match(r"([\w.-]+)\s*([^;\s]*)", line) for line in lines)
    names: dict[str, str] = {}
    for match in found:
        if match:
            names.setdefault(match[1].lower().replace("_", "-"), match[1] + match[2])
    return names


def version_problem(distribution: str, requirement: str) -> str | None:
    """Return why an installed version does not meet a requirement; None if it does.

    Without the package ``packaging`` versions are not compared.
    """
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return None
    version = installed_version(distribution)
    if version is None or Requirement(requirement).specifier.contains(version, prereleases=True):
        return None
    return f"{requirement} is required"


def repair_command(distribution: str, module: str, error: str, requirement: str) -> str:
    """Return the command that repairs a library.

    Args:
        distribution: Name for pip.
        module: Name for ``import``.
        error: Type and last line of the error of its import.
        requirement: What this package requires, such as ``'timm'`` or ``'diffusers>=0.30'``.
    """
    for library, package in _SHARED_LIBRARIES.items():
        if library in error:
            return f"apt-get install {package}"
    missing = re.search(r"No module named '(\w+)", error)
    if missing and missing[1] == "pkg_resources":
        return pip_install("setuptools<81")
    if _is_mismatch_of_torch(module, error):
        return torchvision_command(installed_version("torch") or "")
    if "NumPy 1.x" in error or "numpy.core.multiarray failed" in error:
        return pip_install("numpy<2")
    if missing and missing[1] != module.partition(".")[0]:
        return pip_install(_distribution_of(missing[1]))
    version = installed_version(distribution)
    if version is None or version_problem(distribution, requirement):
        return pip_install(requirement)
    # Another version may need other dependencies, which `--no-deps` would not install.
    release, _, build = version.partition("+")
    return _reinstall(f"{distribution}=={release}", build)


def torchvision_command(torch: str) -> str:
    """Return the command that installs the torchvision of a version of torch.

    Args:
        torch: Version, such as ``'2.12.0+cpu'``. The part after ``+`` names its build.
    """
    version, _, build = torch.partition("+")
    minor = re.match(r"2\.(\d+)", version)
    # torchvision 0.15 was made for torch 2.0, 0.16 for torch 2.1, and so on.
    wanted = f"torchvision==0.{int(minor[1]) + 15}.*" if minor else "torchvision"
    return _reinstall(wanted, build)


def pip_install(*wanted: str) -> str:
    """Return the command that installs requirements."""
    return f"pip install {shlex.join(wanted)}"


def _reinstall(wanted: str, build: str) -> str:
    """Return the command that installs a package again and leaves its dependencies unchanged.

    Args:
        wanted: Requirement.
        build: Build of torch to take it from, such as ``'cpu'`` or ``'cu126'``. Anything else,
            such as the commit of a local build, selects the default index.
    """
    known = re.fullmatch(r"cpu|xpu|cu\d+|rocm[\d.]+", build)
    index = f" --index-url {_TORCH_INDEX}/{build}" if known else ""
    return f"pip install --force-reinstall --no-deps {shlex.quote(wanted)}{index}"


def _is_mismatch_of_torch(module: str, error: str) -> bool:
    if "torchvision::" in error:  # an operator that torchvision could not register
        return True
    signs = ("undefined symbol", "libtorch", "libcudart", "different CUDA versions")
    return module == "torchvision" and any(sign in error for sign in signs)


def _distribution_of(module: str) -> str:
    """Return the name for pip of a module that is missing."""
    names = {"cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "pyyaml"}
    return names.get(module, module.replace("_", "-"))
