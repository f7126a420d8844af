"""Results of the test suite in each set of versions (`tools/dev/environment_results.py`)."""

import importlib.metadata
import json
import sys
from types import SimpleNamespace

import pytest

from tools.dev import environment_results as results

FIRST = """<testsuites><testsuite time="59.6">
<testcase classname="tests.test_a" name="test_one" />
<testcase classname="tests.test_a" name="test_two"><failure>boom</failure></testcase>
<testcase classname="" name="tests.test_b"><error>ImportError</error></testcase>
<testcase classname="tests.test_c" name="test_x"><skipped message="Skipped: no Java" /></testcase>
<testcase classname="tests.test_c" name="test_y"><skipped message="no Java" /></testcase>
<testcase classname="" name="tests.test_d">
<skipped message="collection skipped">('d.py', 3, "Skipped: could not import 'build'")</skipped>
</testcase>
</testsuite></testsuites>"""
AGAIN = """<testsuites><testsuite time="7">
<testcase classname="tests.test_a" name="test_one" />
<testcase classname="tests.test_a" name="test_two" />
<testcase classname="tests.test_b" name="test_z" />
</testsuite></testsuites>"""
PAGE = f"before\n{results.BEGIN}\nold\n{results.END}\nafter\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder for results, with two sets of versions that replace those of the project."""
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(results, "PAGE", tmp_path / "page.md")
    (tmp_path / "page.md").write_text(PAGE)
    (tmp_path / "constraints").mkdir()
    for name, python, pins in (
        ("onedl", "3.12", "onedl_mmengine==0.10.12\ntorch==2.10.0"),
        ("default", "3.11", "mmengine==0.10.7\ntorch==2.12.0"),
    ):
        text = f"# python: {python}\n# extras: mm\n{pins}\n"
        (tmp_path / "constraints" / f"{name}.txt").write_text(text)
    installed(monkeypatch, mmengine="0.10.7", torch="2.12.0", pip="25", pcm_plugin="0.1.0")
    return tmp_path


def installed(monkeypatch, **versions):
    found = [SimpleNamespace(name=name, version=version) for name, version in versions.items()]
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: found)


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["environment_results.py", *map(str, words)])
    return results.main()


def test_outcomes_are_counted(folder):
    (folder / "first.xml").write_text(FIRST)
    assert results.summarize(folder / "first.xml") == {
        "passed": 1,
        "failed": ["::tests.test_b", "tests.test_a::test_two"],
        "skipped": {"could not import 'build'": 1, "no Java": 2},
        "seconds": 60,
    }


def test_files_that_failed_are_listed(folder, monkeypatch, capsys):
    (folder / "first.xml").write_text(FIRST)
    assert run(monkeypatch, "failed", folder / "first.xml") == 0
    assert capsys.readouterr().out == "tests/test_a.py tests/test_b.py\n"


def test_a_failure_is_recorded_until_the_file_passes(folder, monkeypatch, capsys):
    (folder / "default.xml").write_text(FIRST)
    assert run(monkeypatch, "record", "default", folder) == 1
    output = capsys.readouterr().out
    assert "1 passed, 2 failed, 3 skipped, 60 s" in output
    assert "FAILED tests.test_a::test_two" in output
    (folder / "default.again.xml").write_text(AGAIN)
    assert run(monkeypatch, "record", "default", folder) == 0
    recorded = json.loads((folder / "default.json").read_text())
    assert (recorded["passed"], recorded["failed"], recorded["unpinned"]) == (3, [], {})


def test_versions_that_are_not_those_of_the_set_are_an_error(folder, monkeypatch, capsys):
    (folder / "default.xml").write_text(AGAIN)
    installed(monkeypatch, mmengine="0.10.7", torch="2.13.0", Extra_Package="1")
    assert run(monkeypatch, "record", "default", folder) == 1
    output = capsys.readouterr().out
    assert "torch 2.13.0 is installed, constraints/default.txt: 2.12.0" in output
    unpinned = json.loads((folder / "default.json").read_text())["unpinned"]
    assert unpinned == {"extra-package": "1", "torch": "2.13.0"}


def test_a_missing_report_is_an_error(folder, monkeypatch, capsys):
    assert run(monkeypatch, "record", "default", folder) == 1
    assert "pytest wrote no report" in capsys.readouterr().err
    assert not (folder / "default.json").exists()


def test_a_run_without_tests_is_an_error(folder, monkeypatch, capsys):
    (folder / "default.xml").write_text("<testsuites><testsuite time='1'></testsuite></testsuites>")
    assert run(monkeypatch, "record", "default", folder) == 1
    assert "no test passed" in capsys.readouterr().err
    assert not (folder / "default.json").exists()


def test_only_whole_runs_of_the_pinned_versions_are_published(folder, monkeypatch, capsys):
    (folder / "default.xml").write_text(AGAIN)
    monkeypatch.setenv("PYTEST_ARGS", "-k one")
    assert run(monkeypatch, "record", "default", folder) == 0
    assert run(monkeypatch, "table", folder) == 1
    assert "default was tested with PYTEST_ARGS=-k one" in capsys.readouterr().err
    monkeypatch.delenv("PYTEST_ARGS")
    installed(monkeypatch, mmengine="0.10.7", torch="2.13.0")
    assert run(monkeypatch, "record", "default", folder) == 1
    assert run(monkeypatch, "table", folder) == 1
    assert "default was tested with other versions" in capsys.readouterr().err
    assert (folder / "page.md").read_text() == PAGE


def test_the_table_is_written_between_its_markers(folder, monkeypatch):
    recorded = {"passed": 7, "failed": [], "skipped": {"no Java": 2}, "seconds": 600}
    recorded |= {"python": "3.12.1", "date": "2026-11-27", "unpinned": {}, "arguments": ""}
    (folder / "onedl.json").write_text(json.dumps(recorded))
    (folder / "other.json").write_text("{}")
    assert run(monkeypatch, "table", folder) == 0
    page = (folder / "page.md").read_text()
    assert page.startswith(f"before\n{results.BEGIN}\n|  | default | onedl |\n")
    assert page.endswith(f"\n{results.END}\nafter\n")
    for row in (
        "| Python | 3.11 | 3.12 |",
        "| torch | 2.12.0 | 2.10.0 |",
        "| mmengine | 0.10.7 | onedl-mmengine 0.10.12 |",
        "| onedl | 3.12.1 | 7 | 0 | 2 | 10 | 2026-11-27 |",
        "| no Java | 2 |",
    ):
        assert f"\n{row}\n" in page


def test_the_documentation_has_the_versions_of_the_constraints():
    table = results.version_table()
    assert "| torch | " in table
    assert table in results.PAGE.read_text()
