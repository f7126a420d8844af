"""Check of MMEngine, MMPretrain and MMCV, which pip does not install with this package.

Each exists as several distributions that install the same folder, such as ``mmengine`` and
``onedl-mmengine``. A requirement would make pip overwrite the files of the installed one. So the
packages are extras in ``setup.cfg``, and this module checks them before the first import.

``packaging`` is imported late, since `pcm doctor` reports an environment without it too.
"""

import dataclasses
import functools
import importlib.metadata
import importlib.util
import re
import shlex
from pathlib import Path

from pcm_plugin.errors import MissingPackageError

_FORK = "onedl-"
_REQUIREMENTS = {
    "mmengine": (["mmengine>=0.10.4", "setuptools<81"], ["onedl-mmengine>=0.10.12"]),
    "mmpretrain": (["mmpretrain>=1.2.0"], ["onedl-mmpretrain>=1.3.6"]),
    "mmcv": (["mmcv-lite>=2.0"], ["onedl-mmcv>=2.3.6"]),
}
"""Requirements of each package, for an environment of OpenMMLab and for one of the forks.

They are those of the extras ``mm``, ``mmcv-lite`` and ``onedl``.
"""

_DISTRIBUTIONS = {
    "mmengine": ("mmengine", "mmengine-lite", "onedl-mmengine"),
    "mmpretrain": ("mmpretrain", "onedl-mmpretrain"),
    "mmcv": ("mmcv", "mmcv-lite", "mmcv-full", "onedl-mmcv"),
}

MODELS_TRANSFORMERS = {
    "mmpretrain": ("transformers>=4.45,<4.52", "blip"),
    "onedl-mmpretrain": ("transformers>=4.53,<5", "onedl-blip"),
}
"""The versions of transformers with which the models of each distribution of mmpretrain can be
imported, and the extra that installs them. The rest of mmpretrain works with any version."""

_UNKNOWN = "unknown"


@dataclasses.dataclass(frozen=True)
class MMPackage:
    """State of a package.

    Attributes:
        name: Name by which it is imported.
        minimum: Lowest version that works.
        version: Installed version, ``'unknown'``, or None if the package is not installed.
        distributions: Installed distributions that contain it, such as ``onedl-mmengine``. There
            is none for a source folder on the module search path. If there are two, the files of
            one have overwritten those of the other.
    """

    name: str
    minimum: str
    version: str | None
    distributions: tuple[str, ...]

    @property
    def problem(self) -> str | None:
        """Reason for which the package cannot be used, or None."""
        if self.version is None:
            return f"{self.name} is not installed"
        from packaging.version import Version

        if self.version != _UNKNOWN and Version(self.version) < Version(self.minimum):
            return f"{self.name} {self.version} is too old"
        return None


def installed_version(distribution: str) -> str | None:
    """Return the version of a distribution; None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def mm_packages() -> list[MMPackage]:
    """Return the state of mmengine, mmpretrain and mmcv, without importing them."""
    packages = []
    for name, ((requirement, *_), _) in _REQUIREMENTS.items():
        distributions = tuple(
            entry for entry in _DISTRIBUTIONS[name] if installed_version(entry) is not None
        )
        version = _imported_version(name, distributions)
        packages.append(MMPackage(name, requirement.split(">=")[1], version, distributions))
    return packages


def install_command(packages: list[MMPackage]) -> str | None:
    """Return the command that installs the packages that cannot be used, or None if all can.

    The command installs nothing else, so that it does not change an existing environment.

    Args:
        packages: See :func:`mm_packages`.
    """
    unusable = [package for package in packages if package.problem]
    if not unusable:
        return None
    if all(package.version is None for package in packages):
        return "pip install 'pcm-plugin[mm,mmcv-lite]'"
    wanted = [r for package in unusable for r in _REQUIREMENTS[package.name][uses_forks(packages)]]
    names = {re.split("[<>=]", requirement)[0] for requirement in wanted}
    replaced = [name for p in unusable for name in p.distributions if name not in names]
    uninstall = f"pip uninstall -y {shlex.join(replaced)} && " if replaced else ""
    return f"{uninstall}pip install {shlex.join(wanted)}"


def reinstall_command(package: MMPackage, packages: list[MMPackage]) -> str:
    """Return the command that replaces all distributions of a package by one.

    Args:
        package: A package of which several distributions are installed.
        packages: See :func:`mm_packages`.
    """
    wanted = _REQUIREMENTS[package.name][uses_forks(packages)]
    return (
        f"pip uninstall -y {shlex.join(package.distributions)} && pip install {shlex.join(wanted)}"
    )


@functools.cache
def require_mm_packages() -> None:
    """Check that mmengine, mmpretrain and mmcv are installed in versions that work.

    Raises:
        MissingPackageError: If not; with the command that installs them.
    """
    packages = mm_packages()
    command = install_command(packages)
    if command is None:
        return
    wanted = ", ".join(f"{package.name}>={package.minimum}" for package in packages)
    problems = ", ".join(package.problem for package in packages if package.problem)
    message = f"pcm_plugin requires {wanted}: {problems}. Run `{command}`."
    if all(package.version is None for package in packages):
        message += (
            " This installs the packages of OpenMMLab; run `pip install 'pcm-plugin[onedl]'` "
            "instead for their maintained forks."
        )
    if "mmcv-lite" in command:
        message += (
            " mmcv-lite is sufficient for pcm_plugin; run `mim install mmcv` instead if another "
            "project needs mmcv's operators. Do not install both, since they overwrite each other."
        )
    raise MissingPackageError(message)


def explain_models_error(error: Exception) -> str:
    """Explain why ``import mmpretrain.models`` failed, and what to install.

    Args:
        error: What the import raised.
    """
    from packaging.requirements import Requirement
    from packaging.version import Version

    transformers = installed_version("transformers")
    failure = (
        f"mmpretrain's models (BLIP, BLIP-2) cannot be imported with transformers {transformers} "
        f"({type(error).__name__}: {error})."
    )
    rest = "The rest of pcm_plugin works without them."
    mmpretrain = next(package for package in mm_packages() if package.name == "mmpretrain")
    for distribution in mmpretrain.distributions or ("mmpretrain",):
        requirement, extra = MODELS_TRANSFORMERS[distribution]
        if transformers is None or Version(transformers) not in Requirement(requirement).specifier:
            return (
                f"{failure} The models of {distribution} require another version: "
                f"pip install '{requirement}', which is the extra '{extra}' of pcm-plugin. {rest}"
            )
    return f"{failure} To see where, run: python -c 'import mmpretrain.models'. {rest}"


def uses_forks(packages: list[MMPackage]) -> bool:
    """Return whether the installed packages are the forks, whose names start with ``onedl-``.

    Args:
        packages: See :func:`mm_packages`.
    """
    installed = [name for package in packages for name in package.distributions]
    return any(name.startswith(_FORK) for name in installed)


def _imported_version(name: str, distributions: tuple[str, ...]) -> str | None:
    """Return the version of the package that ``import name`` imports, or None."""
    spec = importlib.util.find_spec(name)
    # A folder of this name without __init__.py has no origin.
    if spec is None or spec.origin is None:
        return None
    # The file tells which distribution was installed last; the forks look up their own version.
    file = Path(spec.origin).with_name("version.py")
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if found := re.search(r"^__version__ = ['\"]([^'\"]+)['\"]", text, re.MULTILINE):
        return found[1]
    if found := re.search(r"version\(['\"]([^'\"]+)['\"]\)", text):
        distributions = (found[1], *distributions)
    versions = [installed_version(entry) for entry in distributions]
    return next((version for version in versions if version), _UNKNOWN)
