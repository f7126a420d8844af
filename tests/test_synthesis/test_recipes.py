from pathlib import Path

import pytest

from pcm_plugin.synthesis.pipeline.recipes import load_recipe


@pytest.mark.parametrize("name", sorted(path.stem for path in Path("configs/recipes").glob("*.py")))
def test_every_recipe_is_read(name):
    changed = load_recipe(name, {"generate.steps": 99, "refine.keep": 0.5})
    assert (changed.generate.steps, changed.refine.keep) == (99, 0.5)


def test_recipes_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("toy")
    assert Path(recipe.generate.pipeline, "model_index.json").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generate.step": 3}, "generate has no setting step; its settings are"),
        ({"extract.dtype": "int8"}, "extract: dtype must be one of float16, .*, got 'int8'"),
        ({"painting.x": 3}, r"unknown parts \['painting'\]"),
        ({"concepts.max": 3}, "concepts has no setting max; its"),
        ({"vocabulary.max_nouns": 3}, "vocabulary has no setting max_nouns; its"),
        ({"generate.prompt": ["a", "{}"]}, r"prompt must be text, got \['a', '{}'\]"),
        ({"extract.clip_score_source": "annotation"}, "extract: .*annotations have no CLIP scores"),
        ({"assign.model": "x"}, "assign has no effect without refine: set refine.method"),
    ],
)
def test_invalid_recipes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        load_recipe("toy", changes)
    with pytest.raises(FileNotFoundError, match=r"no recipe nothing: .*sd15_vitb32"):
        load_recipe("nothing")
