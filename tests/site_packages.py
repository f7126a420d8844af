"""The package as a wheel installs it: without a checkout, with its configs in ``.mim``."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def build_site(folder: Path) -> Path:
    """Write a folder like ``site-packages`` with links to the modules of this package."""
    package = folder / "pcm_plugin"
    package.mkdir(parents=True)
    for part in (ROOT / "pcm_plugin").iterdir():
        if part.name not in (".mim", "__pycache__"):
            (package / part.name).symlink_to(part)
    shutil.copytree(ROOT / "configs", package / ".mim" / "configs")
    return folder


def run_in_site(
    site: Path, folder: Path, *words: object, timeout: float = 100
) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with the package of the site.

    Args:
        site: Folder of :func:`build_site`.
        folder: Working folder.
        *words: Arguments of ``python``.
        timeout: Seconds after which it is killed.
    """
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
