"""Build steps that setup.cfg cannot express.

openmim looks for configs, training and test programs and the model index of a package in its folder
``.mim``. A wheel contains copies of them, an editable install contains links.
"""

import os
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.resolve()
PACKAGE = Path("pcm_plugin")
# Files of the checkout, and their place in `.mim`. The model index names the metafile of the
# packaged models by its path in the checkout.
FILES = ("configs", "tools", "model-index.yml", "pcm_plugin/model_zoo/metafile.yml")


class BuildPy(build_py):
    """The command ``build_py`` with the folder ``.mim``."""

    def run(self) -> None:
        """Build the package, then add ``.mim``."""
        if self.editable_mode:
            super().run()
            _fill(ROOT / PACKAGE / ".mim", link=True)
            return
        # Files of an earlier build must not get into the wheel.
        package = Path(self.build_lib) / PACKAGE
        shutil.rmtree(package, ignore_errors=True)
        super().run()
        _fill(package / ".mim", link=False)


def _fill(mim: Path, link: bool) -> None:
    shutil.rmtree(mim, ignore_errors=True)
    for name in FILES:
        source, target = ROOT / name, mim / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if link:
            target.symlink_to(os.path.relpath(source, target.parent))
        elif source.is_dir():
            # tools/dev is for checkouts only.
            ignore = shutil.ignore_patterns("__pycache__", "*.pyc", "dev")
            shutil.copytree(source, target, ignore=ignore)
        else:
            shutil.copy2(source, target)


setup(cmdclass={"build_py": BuildPy})
