"""Pages of the API reference: one per package, with all of its modules.

The pages are derived from the package, so that a new module, class or function is part of the
reference without further steps. At the end of a build, :func:`check_completeness` compares the
reference with the registries and the ``__all__`` of all packages.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

import pcm_plugin
from pcm_plugin import registry

FOLDER = "generated/api"
"""Folder of the pages, below that of the documentation."""

LEFT_OUT = ("pcm_plugin.cli", "pcm_plugin.commands", "pcm_plugin.toyworld")
"""Modules and packages that are used from the command line only."""

ORDER = ("apis", "models", "datasets", "formats", "synthesis", "evaluation", "visualization")
"""Order of the first pages; other packages follow."""

_LOGGER = logging.getLogger(__name__)


def list_packages(package: ModuleType = pcm_plugin) -> Iterator[tuple[str, list[str]]]:
    """Yield the names of all documented packages, each with the names of its modules."""
    found = [*pkgutil.iter_modules(package.__path__, f"{package.__name__}.")]
    public = [
        item
        for item in found
        if item.name not in LEFT_OUT and not item.name.rsplit(".", 1)[1].startswith("_")
    ]
    yield package.__name__, [item.name for item in public if not item.ispkg]
    packages = [item.name for item in public if item.ispkg]
    if package is pcm_plugin:
        first = [f"{package.__name__}.{name}" for name in ORDER]
        packages.sort(key=lambda name: first.index(name) if name in first else len(first))
    for name in packages:
        yield from list_packages(importlib.import_module(name))


def public_names() -> Iterator[tuple[str, str]]:
    """Yield each public name, and the full name of the definition of its object.

    Public names are those in the ``__all__`` of packages and in the registries.
    """
    for package, _ in list_packages():
        yield from ((f"{package}.{name}", where) for name, where in _exported_names(package))
    for registry_name, members in _registered_types():
        yield from ((f"{registry_name}.{name}", where) for name, where in members)


def _exported_names(package: str) -> list[tuple[str, str]]:
    module = importlib.import_module(package)
    values = [(name, getattr(module, name)) for name in getattr(module, "__all__", ())]
    return [(name, _definition(value)) for name, value in values if hasattr(value, "__qualname__")]


def _registered_types() -> list[tuple[str, list[tuple[str, str]]]]:
    found = []
    for registry_name, value in vars(registry).items():
        if isinstance(value, registry.Registry):
            value.import_from_location()
            members = sorted(value.module_dict.items())
            own = [(name, _definition(member)) for name, member in members]
            found.append(
                (registry_name, [item for item in own if item[1].startswith("pcm_plugin.")])
            )
    return found


def _definition(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _link(name: str, definition: str) -> str:
    return f":py:obj:`{name} <{definition}>`"


def page_text(package: str, modules: list[str]) -> str:
    """Return the page of a package."""
    lines = [package, "=" * len(package), "", f".. automodule:: {package}", "   :members:"]
    lines += ["   :ignore-module-all:", ""]
    names = [_link(*item) for item in _exported_names(package)]
    if names and modules:
        lines += [f"Import from ``{package}``: {', '.join(names)}.", ""]
    for module in modules:
        title = module.rsplit(".", 1)[1]
        lines += [title, "-" * len(title), "", f".. automodule:: {module}", "   :members:"]
        lines += ["   :show-inheritance:", ""]
    return "\n".join(lines)


def index_text(packages: list[str]) -> str:
    """Return the page that lists all packages."""
    title = "API reference"
    lines = [title, "=" * len(title), "", ".. list-table::", "   :widths: 35 65", ""]
    for package in packages:
        summary = (importlib.import_module(package).__doc__ or "").split("\n\n")[0]
        lines += [f"   * - :doc:`{package}`", f"     - {' '.join(summary.split())}"]
    title = "Registered types"
    lines += ["", title, "-" * len(title), ""]
    lines += ["Configs name these types with the prefix ``pcm_plugin.``, as in"]
    lines += ["``dict(type='pcm_plugin.PCMMixup', ...)``.", ""]
    lines += [".. list-table::", "   :widths: 20 80", ""]
    for name, members in _registered_types():
        links = [_link(*item) for item in members]
        if links:
            lines += [f"   * - ``{name}``", f"     - {', '.join(links)}"]
    entries = [f"   {package.partition('.')[2] or package} <{package}>" for package in packages]
    return "\n".join([*lines, "", ".. toctree::", "   :hidden:", "", *entries, ""])


def write_pages(app: Sphinx) -> None:
    """Write the pages that have changed, and remove those of packages that no longer exist."""
    folder = Path(app.srcdir, FOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    packages = dict(list_packages())
    pages = {f"{package}.rst": page_text(package, modules) for package, modules in packages.items()}
    pages["index.rst"] = index_text(list(packages))
    for page in folder.iterdir():
        if page.name not in pages:
            page.unlink()
    for name, text in pages.items():
        page = folder / name
        if not page.is_file() or page.read_text() != text:
            page.write_text(text)


def skip_field_aliases(
    app: Sphinx, what: str, name: str, value: object, skip: bool, options: object
) -> bool | None:
    """Leave out the fields of named tuples, which the docstring of the class describes."""
    return True if type(value).__name__ == "_tuplegetter" else None


def check_completeness(app: Sphinx, exception: Exception | None) -> None:
    """Warn about public names that the reference does not contain."""
    if exception is None:
        documented = app.env.domains.python_domain.objects
        for name, definition in public_names():
            if definition not in documented:
                _LOGGER.warning("%s (%s) is not in the API reference", name, definition)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register this extension."""
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-skip-member", skip_field_aliases)
    app.connect("build-finished", check_completeness)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
