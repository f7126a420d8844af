"""Names that packages import from their modules on first use."""

import importlib
import subprocess
import sys

import pytest

PACKAGES = ("apis", "engine", "evaluation", "visualization")


@pytest.mark.parametrize("package", PACKAGES)
def test_all_names_of_a_package_can_be_imported(package):
    module = importlib.import_module(f"pcm_plugin.{package}")
    assert [getattr(module, name).__name__ for name in module.__all__] == module.__all__
    with pytest.raises(AttributeError, match=f"'pcm_plugin.{package}' has no attribute 'missing'"):
        _ = module.missing


def test_importing_these_packages_imports_no_library():
    heavy = ("torch", "mmengine", "numpy", "PIL", "matplotlib")
    imports = ", ".join(f"pcm_plugin.{package}" for package in PACKAGES)
    code = (
        f"import sys, {imports}\nfound = sys.modules.keys() & {{*{heavy}}}\nassert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
