"""The tested versions of the documentation are those of the constraints."""

import re

from tests.test_docs.pages import ROOT


def versions_of(file):
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / file).read_text(), re.MULTILINE))


def test_versions_are_those_of_the_constraints():
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| ([a-z][\w, -]+) \| ([\d., ]+) \| ([\d., ]+) \|$", page, re.MULTILINE)
    assert len(rows) >= 5
    for names, *columns in rows:
        for column, name_of_set in zip(columns, ("default", "py312"), strict=True):
            versions = versions_of(file := f"constraints/{name_of_set}.txt")
            for name, version in zip(names.split(", "), column.split(", "), strict=True):
                assert versions[name] == version, f"{name} in {file}"
