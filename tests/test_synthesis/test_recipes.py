from pathlib import Path

import pytest

from pcm_plugin.synthesis.pipeline.corpus_settings import ValidationSettings
from pcm_plugin.synthesis.pipeline.recipes import load_recipe

RECIPES = sorted(path.stem for path in Path("configs/recipes").glob("*.py"))
TEXT = [name for name in RECIPES if name.startswith("text_")]


@pytest.mark.parametrize("name", sorted({*RECIPES} - {*TEXT}))
def test_every_recipe_is_read(name):
    changed = load_recipe(name, {"generate.steps": 99, "refine.keep": 0.5})
    assert (changed.generate.steps, changed.refine.keep) == (99, 0.5)


@pytest.mark.parametrize("name", TEXT)
def test_text_recipes_are_read(name):
    recipe = load_recipe(name, {"vocabulary.min_count": 7, "model.decap.neck.dropout": 0.1})
    assert recipe.generate is None
    assert recipe.stages == ("corpus", "extract")
    assert not recipe.extract.patches
    assert recipe.vocabulary.min_count == 7
    assert recipe.model["decap"]["neck"]["dropout"] == 0.1
    small = load_recipe(name, {"language_model.layers": 3}).language_model
    assert (small.layers, small.width) == (3, 128)


def test_text_recipes_have_the_clip_of_the_others():
    for tower in ("vitb32", "vitl14"):
        text, image = load_recipe(f"text_{tower}"), load_recipe(f"sd15_{tower}")
        assert (text.extract.model, text.extract.pretrained) == (
            image.extract.model,
            image.extract.pretrained,
        )
        assert text.concepts == image.concepts


def test_images_are_turned_off_by_name(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extract: {model: ViT-B-32-quickgelu, pretrained: openai}\n")
    with pytest.raises(ValueError, match=r"missing parts \['generate'\] \(generate=None encodes"):
        load_recipe(str(file))
    file.write_text(file.read_text() + "generate: null\n")
    assert load_recipe(str(file)).generate is None
    assert load_recipe("sd15_vitb32", {"generate": None}).generate is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generate.steps": 3}, r"captions alone .*so generate\.steps has no effect"),
        (
            {"generate.steps": 3, "generate.pipeline": "a/b"},
            r"generate\.steps, generate\.pipeline have no effect",
        ),
        ({"refine.method": "sync"}, r"refine\.method has no effect: .*such as sd15_vitb32"),
        ({"refine": {}}, "so refine has no effect"),
        ({"assign.model": "x"}, r"assign\.model has no effect"),
        ({"extract.pool": 2}, r"extract\.pool has no effect"),
        ({"extract.patch_mode": "sclip"}, r"extract\.patch_mode has no effect"),
        ({"extract.patches": True}, r"extract\.patches has no effect"),
        ({"model.neck.dropout": 0.1}, r"model\.capdec, model\.decap, got model\.neck"),
        ({"language_model.layers": 0}, "language_model: layers, width, heads and positions must"),
        ({"language_model.width": 130}, "width a multiple of heads, got layers=2, width=130"),
        ({"language_model.vocab_size": 256}, "vocab_size must be at least 257"),
        ({"language_model.depth": 3}, "language_model has no setting depth"),
        ({"extract": None}, r"missing parts \['extract'\]"),
        ({"concepts": 5}, "concepts must be a dict of settings, got 5"),
    ],
)
def test_invalid_text_recipes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        load_recipe("text_toy", changes)


def test_a_language_model_has_no_effect_with_images():
    with pytest.raises(ValueError, match=r"generates images, so language_model has no effect"):
        load_recipe("toy", {"language_model.layers": 2})


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


def test_validation_is_on_by_default_for_images_and_off_by_name(tmp_path):
    assert load_recipe("toy").validation == ValidationSettings()
    assert load_recipe("sd15_vitb32", {"validation": None}).validation is None
    assert load_recipe("toy", {"validation.captions": 7}).validation == ValidationSettings(7)
    assert load_recipe("text_toy").validation is None
    file = tmp_path / "mine.py"
    file.write_text(
        f"_base_ = {str(Path('configs/recipes/toy.py').resolve())!r}\nvalidation = None\n"
    )
    assert load_recipe(str(file)).validation is None
    assert load_recipe(str(file), {"validation.seed": 2}).validation.seed == 2
    with pytest.raises(ValueError, match="validation has no setting share; its settings are"):
        load_recipe("toy", {"validation.share": 1})
    with pytest.raises(ValueError, match="validation: captions must be an integer of at least 1"):
        load_recipe("toy", {"validation.captions": 0})
    with pytest.raises(ValueError, match=r"captions alone .*so validation\.captions has no effect"):
        load_recipe("text_toy", {"validation.captions": 7})


@pytest.mark.parametrize("recipe", ["recommended", "recommended_vitl14", "recommended_toy"])
def test_the_captions_that_an_image_retrieves_follow_the_images_per_caption(recipe):
    assert load_recipe(recipe).refine.num_captions == 8
    for count in (1, 3):
        settings = {"generate.images_per_caption": count}
        assert load_recipe(recipe, settings).refine.num_captions == 2 * count
        own = {**settings, "refine.num_captions": 5}
        assert load_recipe(recipe, own).refine.num_captions == 5
    only_best = load_recipe(recipe, {"refine.method": "filter"}).refine
    assert only_best.as_record()["num_captions"] == 2
