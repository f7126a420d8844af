"""The site that `make docs` builds contains all pages and all public names."""

import importlib
import re
import runpy

import pytest

from tests.test_docs.pages import ROOT

DOCS = ROOT / "docs"


@pytest.fixture
def extension(monkeypatch):
    """Return a function that imports an extension of the site."""
    pytest.importorskip("sphinx")
    monkeypatch.syspath_prepend(DOCS / "_ext")
    return importlib.import_module


def test_the_configuration_names_extensions_that_exist(extension):
    settings = runpy.run_path(str(DOCS / "conf.py"))
    assert settings["nitpicky"]
    for name in settings["extensions"]:
        assert callable(extension(name).setup) or name == "myst_parser"


def test_every_page_is_in_the_table_of_contents():
    index = (DOCS / "index.md").read_text()
    listed = [
        line
        for block in re.findall(r"^```{toctree}\n(.*?)^```", index, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
        if line and not line.startswith(":")
    ]
    pages = [page.stem for page in DOCS.glob("*.md") if page.stem != "index"]
    assert sorted(name for name in listed if "/" not in name) == sorted(pages), (
        "list each page in a toctree of docs/index.md"
    )
    assert "generated/api/index" in listed
    assert "generated/systems/*" in listed


def test_every_public_name_is_in_a_module_of_the_reference(extension):
    api_pages = extension("api_pages")
    pages = {package: api_pages.page_text(package, m) for package, m in api_pages.list_packages()}
    documented = re.findall(r"automodule:: (\S+)", "\n".join(pages.values()))
    names = dict(api_pages.public_names())
    assert {"pcm_plugin.models.PCMNet", "MODELS.PCMNet", "HOOKS.AtomicCheckpointHook"} <= {*names}
    missing = [name for name in names.items() if name[1].rpartition(".")[0] not in documented]
    assert not missing
    assert len(documented) == len(set(documented))
    assert not [name for name in documented if name.startswith("pcm_plugin.commands")]


def test_links_lead_to_pages_and_files_of_the_site(extension):
    repository_links = extension("repository_links")
    copies = repository_links.list_copies()
    assert copies[ROOT / "configs" / "pcm_net" / "README.md"] == "generated/systems/pcm_net"

    def rewrite(text, page, docname):
        return repository_links.rewrite_links(text, ROOT / page, docname, copies)

    # From a page of docs/ to a copy, a folder, a file and a page.
    text = (
        "[PCM-Net](../configs/pcm_net/README.md#train) [configs](../configs) "
        "[`pcm_coco.py`](../configs/pcm_coco.py) [scores](evaluation.md) [web](https://a.b/c.md)"
    )
    assert rewrite(text, "docs/index.md", "index") == (
        "[PCM-Net](generated/systems/pcm_net.md#train) configs "
        "[`pcm_coco.py`](../configs/pcm_coco.py) [scores](evaluation.md) [web](https://a.b/c.md)"
    )
    # From a copy; code is not changed.
    text = "[scores](../../docs/evaluation.md) [`a`](pcm_coco_dfn.py)\n```\n[x](../../y)\n```\n"
    page = "configs/pcm_net/README.md"
    assert rewrite(text, page, copies[ROOT / page]) == (
        "[scores](../../evaluation.md) [`a`](../../../configs/pcm_net/pcm_coco_dfn.py)\n"
        "```\n[x](../../y)\n```\n"
    )
