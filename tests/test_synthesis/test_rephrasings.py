"""Images that are generated from rephrased captions, from the file to the pairs."""

import json
import re
from dataclasses import replace

import pytest
import yaml

from pcm_plugin.commands.generate import main
from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.formats.feature_store import FeatureStore
from pcm_plugin.formats.pair_selection import load_pairs
from pcm_plugin.synthesis.generate.generate_images import generate_images
from pcm_plugin.synthesis.generate.settings import GenerateSettings
from pcm_plugin.synthesis.generate.text2image import ImageGenerator, image_seed
from tests.builders import build_clip, build_pipeline
from tests.test_synthesis.test_generate import contents, samples
from tests.test_tools.commands import run

CAPTIONS = {"a": "a red dog", "b": "a blue car", "c": "a tree"}
TEXTS = {"a": ["the dog is red", "a dog, red"], "b": ["one blue car"], "c": []}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return build_pipeline(tmp_path_factory.mktemp("models") / "pipeline")


@pytest.fixture
def captions(tmp_path):
    path = tmp_path / "captions.jsonl"
    path.write_text(
        "".join(json.dumps({"id": i, "caption": t}) + "\n" for i, t in CAPTIONS.items())
    )
    return path


@pytest.fixture
def settings(pipeline, tmp_path):
    file = tmp_path / "rephrasings.jsonl"
    file.write_text(
        "\n".join(json.dumps({"id": i, "texts": texts}) + "\n" for i, texts in TEXTS.items())
    )
    return GenerateSettings(
        str(pipeline),
        steps=1,
        shard_size=2,
        format="png",
        images_per_caption=4,
        rephrasings=str(file),
    )


def test_images_are_generated_from_the_caption_and_its_texts_in_turn(tmp_path, captions, settings):
    folder = generate_images(captions, settings, tmp_path / "out", batch_size=3)
    found = samples(folder.path)
    facts = [json.loads(data) for name, data in found.items() if name.endswith(".json")]
    assert [f["id"] for f in facts] == [f"{i}-{n}" for i in CAPTIONS for n in range(4)]
    assert [f["caption"] for f in facts] == [text for text in CAPTIONS.values() for _ in range(4)]
    cycles = {"a": [None, *TEXTS["a"], None], "b": [None, "one blue car"] * 2, "c": [None] * 4}
    assert [f.get("prompt") for f in facts] == [p for prompts in cycles.values() for p in prompts]
    assert [f["seed"] for f in facts] == [image_seed(0, i, n) for i in CAPTIONS for n in range(4)]
    # Without rephrasings, images from the caption itself are the same, with the same seeds.
    plain = replace(settings, rephrasings=None)
    generate_images(captions, plain, tmp_path / "plain", batch_size=3)
    same = [
        name.partition(".")[0]
        for name, data in samples(tmp_path / "plain").items()
        if name.endswith(".png") and data == found[name]
    ]
    unchanged = ["00000000-0", "00000000-3", "00000001-0", "00000001-2"]
    assert same == unchanged + [f"00000002-{n}" for n in range(4)]


def test_an_interrupted_run_ends_with_the_same_bytes(tmp_path, captions, settings, monkeypatch):
    generate_images(captions, settings, tmp_path / "whole")
    generate, calls = ImageGenerator.generate, []

    def dies(generator, batch):
        if calls:
            raise KeyboardInterrupt
        calls.append(batch)
        return generate(generator, batch)

    with monkeypatch.context() as patch:
        patch.setattr(ImageGenerator, "generate", dies)
        with pytest.raises(KeyboardInterrupt):
            generate_images(captions, settings, tmp_path / "killed")
    generate_images(captions, settings, tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_the_folder_records_the_content_of_the_file(tmp_path, captions, settings):
    assert "rephrasings" not in replace(settings, rephrasings=None).as_record()
    folder = generate_images(captions, settings, tmp_path / "out")
    assert folder.manifest["settings"]["rephrasings"].startswith("sha256 ")
    copy = tmp_path / "copy.jsonl"
    copy.write_text((tmp_path / "rephrasings.jsonl").read_text())
    generate_images(captions, replace(settings, rephrasings=str(copy)), tmp_path / "out")
    copy.write_text(copy.read_text().replace("one blue", "some blue"))
    with pytest.raises(UserError, match="rephrasings: 'sha256"):
        generate_images(captions, replace(settings, rephrasings=str(copy)), tmp_path / "out")


LINES = ['{"id": "a", "texts": ["x"]}', '{"id": "b", "texts": []}', '{"id": "c", "texts": []}']


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", "a line must be {"),
        ('{"id": "b", "texts": []', "a line must be {"),
        ('{"id": "b", "text": "x"}', "a line must be {"),
        ('{"id": null, "texts": []}', "an id must be a number or a text, got None"),
        ('{"id": ["b"], "texts": []}', r"an id must be a number or a text, got \['b'\]"),
        ('{"id": "a", "texts": []}', "the id 'a' is that of line 1 too"),
        ('{"id": "b", "texts": "x"}', "texts must be a list of texts, got \"'x'\""),
        ('{"id": "b", "texts": ["x", 3]}', "texts must be a list of texts"),
        ('{"id": "b", "texts": ["x", " "]}', "a text must not be empty, got ' ': remove it"),
        ('{"id": "b", "texts": ["x y", " x  y"]}', "the text 'x  y' is repeated: remove it"),
        ('{"id": "b", "texts": ["' + "x" * 1001 + '"]}', "a caption of 1,001 characters"),
        ('{"id": "b", "texts": ["\\ud800"]}', "not Unicode"),
        ('{"id": "b", "texts": ["x", "y", "z", "w"]}', "at least 5, got 4: raise it, or remove"),
        ('{"id": "b", "texts": ["a blue car"]}', "the text 'a blue car' is the caption itself"),
        ('{"id": "z", "texts": []}', "has no line for the caption 'b'"),
        ('{"id": "b", "texts": []}\n{"id": "z", "texts": []}', "no caption has the id 'z'"),
        ('{"id": "b", "texts": ["\xff"]}'.encode("latin-1"), "write the file as UTF-8"),
    ],
)
def test_an_invalid_file_is_reported_before_work_starts(
    tmp_path, captions, settings, line, message, monkeypatch
):
    lines = [line if isinstance(line, bytes) else line.encode(), *map(str.encode, LINES[2:])]
    file = tmp_path / "rephrasings.jsonl"
    file.write_bytes(b"\n".join([LINES[0].encode(), *lines]))
    words = [captions, "--pipeline", settings.pipeline, "--images-per-caption", 4]
    words += ["--rephrasings", file, "--out", tmp_path / "out"]
    monkeypatch.setattr("sys.argv", ["pcm generate", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    place = r" " if "no line" in message else r":[23]: "
    assert re.match(rf"{file}{place}.*{message}", ended.value.code), ended.value.code
    assert not (tmp_path / "out").exists()


def test_a_missing_file_and_a_wrong_type_are_reported(settings):
    with pytest.raises(MissingFileError, match=r"no file of rephrased captions at none\.jsonl"):
        replace(settings, rephrasings="none.jsonl")
    with pytest.raises(UserError, match="rephrasings must be text, got 3"):
        replace(settings, rephrasings=3)


def test_a_caption_that_is_missing_is_refused_before_the_first_image(tmp_path, captions, settings):
    captions.write_text(captions.read_text() + '{"id": "d", "caption": "a boat"}')
    with pytest.raises(UserError, match=r"no line for the caption 'd' \('a boat'\): add one"):
        generate_images(captions, settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_recipe_and_the_best_image_of_each_caption(tmp_path, pipeline):
    things = ["dog", "cat", "car", "tree", "house"]
    texts = [f"the {a} is next to a {b}" for a in things for b in things]
    (tmp_path / "captions.txt").write_text("\n".join(texts))
    file = tmp_path / "rephrasings.jsonl"
    rows = [{"id": i, "texts": [f"{text}, a drawing"]} for i, text in enumerate(texts, start=1)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "vocabulary": {"min_count": 1},
        "concepts": {"min_count": 1},
        "generate": {
            "pipeline": str(pipeline),
            "steps": 1,
            "images_per_caption": 2,
            "rephrasings": str(file),
        },
        "extract": {"model": build_clip(tmp_path / "clip")},
        "refine": {"method": "filter", "pairs_per_caption": 1, "keep": 1.0},
        "validation": {"captions": 2},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    args = [tmp_path / "captions.txt", "--recipe", tmp_path / "tiny.yaml", "--device", "cpu"]
    out = tmp_path / "data"
    # The file has texts of captions beyond the limit, too.
    for name, options in (("dry", ["--dry-run"]), ("limited", ["--limit", 20])):
        log = tmp_path / f"{name}.log"
        result = run("make-dataset", *args, "--out", out, *options, log=log)
        assert result.code == 0, result.output
    assert len(list(samples(out / "synthetic"))) == 2 * 40
    store = FeatureStore(out / "train_store")
    assert store.record(1)["image_id"] == "1-1"
    assert store.record(1)["captions"] == [texts[0]]
    pairs = load_pairs(store, out / "pairs" / "pairs.safetensors")
    chosen = [store.caption(j) for j in pairs.caption.tolist()]
    assert len(chosen) == len(set(chosen))
    file.write_text(file.read_text() + '{"id": 99, "texts": []}')
    for options in (["--dry-run"], []):
        log = tmp_path / "refused.log"
        result = run("make-dataset", *args, "--out", tmp_path / "no", *options, log=log)
        assert result.code == 1
        assert "rephrasings.jsonl:26: no caption has the id '99'" in result.output
        assert not (tmp_path / "no").exists()
