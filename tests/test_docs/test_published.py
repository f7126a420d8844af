"""Published figures have one source: the metafiles of the configs."""

import re

import pytest
from mmengine.fileio import load

from pcm_plugin.commands.evaluation_names import list_evaluations
from pcm_plugin.commands.paper_tables import TABLES
from pcm_plugin.commands.paper_trainings import TRAININGS
from pcm_plugin.commands.published import load_published, update_readmes
from pcm_plugin.engine.config_files import list_configs
from tests.test_docs.pages import ROOT

METAFILES = sorted(ROOT.glob("configs/*/metafile.yml"))


def test_readmes_have_the_tables_of_their_metafiles():
    before = {page: page.read_text() for page in ROOT.glob("configs/*/README.md")}
    try:
        pages = update_readmes()
        assert len(pages) == len(METAFILES) - 1  # nothing is published of BLIP with PCM
        changed = [page for page, text in before.items() if page.read_text() != text]
        assert not changed, "run pcm paper-table --update-readmes"
    finally:
        for page, text in before.items():
            page.write_text(text)


@pytest.mark.parametrize("file", METAFILES, ids=lambda file: file.parent.name)
def test_metafiles_name_what_exists(file):
    index = load(ROOT / "model-index.yml")["Import"]
    assert file.relative_to(ROOT).as_posix() in index
    content = load(file)
    collections = {part["Name"]: part for part in content["Collections"]}
    for part in collections.values():
        assert (ROOT / part["README"]).is_file()
        assert re.match("https://arxiv.org/abs/", part["Paper"]["URL"])
    names = [model["Name"] for model in content["Models"]]
    assert len(set(names)) == len(names)
    for model in content["Models"]:
        assert model["In Collection"] in collections
        assert (ROOT / model["Config"]).is_file()
        assert model["Name"] in {*list_configs(), *TRAININGS}
        for result in model.get("Published Results", []):
            assert result.get("Evaluation") in (None, *list_evaluations())


def test_every_config_of_coco_and_flickr30k_is_in_a_metafile():
    names = {model["Name"] for file in METAFILES for model in load(file)["Models"]}
    assert {name for name in list_configs() if re.search("coco|flickr30k", name)} <= names


def test_every_published_figure_is_in_a_table():
    shown = {(row.training, row.eval_on) for table in TABLES.values() for row in table.rows}
    assert load_published().keys() <= shown


def test_the_model_index_can_be_read():
    modelindex = pytest.importorskip("modelindex")
    index = modelindex.load(str(ROOT / "model-index.yml"))
    index.build_models_with_collections()
    assert {"pcm_coco", "pcm-net_toy"} <= {model.name for model in index.models}
