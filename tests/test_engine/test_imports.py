"""Import rules of pyproject.toml, on a copy of the package that breaks each of them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINTER = Path(sys.executable).with_name("lint-imports")

# Each line breaks one rule: importer, imported.
BREAKS = [
    ("formats.coco", "pcm_plugin.registry"),
    ("models.functional.mix", "pcm_plugin.structures"),
    ("models.layers.transformer", "pcm_plugin.models.necks.pcm_mixup"),
    ("evaluation.matching", "pcm_plugin.synthesis.ranks"),
    ("engine.noam", "pcm_plugin.toyworld.world"),
    ("visualization.charts", "tools.train"),
    # The next two form a cycle.
    ("engine.noam", "pcm_plugin.engine.schedules"),
    ("engine.schedules", "pcm_plugin.engine.noam"),
]

pytestmark = pytest.mark.skipif(not LINTER.exists(), reason="import-linter is not installed")


def lint(folder):
    command = [LINTER, "--no-cache", "--no-logo"]
    # Without PYTHONPATH the package of this folder is found first.
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env={})


def test_broken_import_rules_are_reported(tmp_path):
    package = tmp_path / "pcm_plugin"
    python_only = shutil.ignore_patterns("assets", "model_zoo", "__pycache__")
    shutil.copytree(ROOT / "pcm_plugin", package, ignore=python_only)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert lint(tmp_path).returncode == 0

    for importer, imported in BREAKS:
        path = package / f"{importer.replace('.', '/')}.py"
        path.write_text(path.read_text() + f"\nimport {imported}\n")
    (package / "new_package.py").touch()
    run = lint(tmp_path)

    assert run.returncode == 1
    assert "0 kept, 5 broken" in run.stdout
    for importer, imported in BREAKS[:6]:
        assert f"pcm_plugin.{importer} -> {imported.removesuffix('.train')}" in run.stdout
    assert "No cycles are allowed in pcm_plugin.engine" in run.stdout
    assert "new_package" in run.stdout
