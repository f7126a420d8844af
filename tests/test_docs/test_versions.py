"""The versions of the documentation are those of the constraints."""

import importlib.util

from tests.test_docs.pages import ROOT


def test_versions_are_those_of_the_constraints():
    path = ROOT / "tools" / "dev" / "environment_results.py"
    spec = importlib.util.spec_from_file_location("environment_results", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    table = script.version_table()
    assert "| torch | " in table
    assert table in (ROOT / "docs" / "environments.md").read_text()
