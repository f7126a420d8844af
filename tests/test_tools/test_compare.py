"""Tests of pcm compare: tables, files, page, failures, wrong inputs."""

import json
import sys

import pandas
import pytest
import torch

from pcm_plugin.apis import CaptionInferencer, ImageToTextModel
from pcm_plugin.commands import compare
from pcm_plugin.evaluation import CaptionMetric
from pcm_plugin.formats.coco import write_coco_captions
from pcm_plugin.toyworld.render import render
from pcm_plugin.toyworld.world import unseen_scenes
from tests.builders import build_clip
from tests.image_text_models import build_model
from tests.test_tools.commands import run

NAME = "pcm-net_toy"
OTHERS = ["a dog", "a dog", "two cats sit on a car", "a tree"]
COUNT = len(OTHERS)


@pytest.fixture(scope="module")
def inferencer():
    return CaptionInferencer(NAME, device="cpu", show_progress=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return the folders of a GIT, which needs no prompt, and of a LLaVA, which needs one."""
    folder = tmp_path_factory.mktemp("models")
    return build_model(folder / "tiny-git", "git"), build_model(folder / "tiny-llava", "llava")


@pytest.fixture
def inputs(tmp_path):
    """Return a folder with photos, references and the captions of another program."""
    (tmp_path / "photos").mkdir()
    for number, scene in enumerate(unseen_scenes(COUNT, minimum=2)):
        render(scene, 0).image.save(tmp_path / "photos" / f"{number}.png")
    references = [(i, f"{i}.png", [f"a red house {i}", "a dog runs"]) for i in range(COUNT)]
    write_coco_captions(tmp_path / "references.json", references)
    rows = [{"image_id": i, "caption": caption} for i, caption in enumerate(OTHERS)]
    (tmp_path / "other.json").write_text(json.dumps(rows))
    return tmp_path


@pytest.fixture
def command(monkeypatch, capsys, inputs, inferencer):
    """Return a function that runs the command here and returns exit code, stdout and stderr."""
    monkeypatch.setattr(
        "pcm_plugin.commands.comparing.CaptionInferencer", lambda *args, **kwargs: inferencer
    )

    def command(*words, images=inputs / "photos"):
        words = [NAME, "--images", images, "--device", "cpu", *words]
        monkeypatch.setattr(sys, "argv", ["compare", *map(str, words)])
        code = 0
        try:
            compare.main()
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return command


def table_of(printed):
    """Return the printed table as a frame with the systems as index."""
    lines = [line.split() for line in printed.splitlines()]
    width = len(lines[0])
    rows = [line for line in lines[1:] if len(line) == width and line[-1][-1:].isdigit()]
    frame = pandas.DataFrame(rows, columns=lines[0]).set_index("system")
    return frame.astype(float)


def test_without_references(command, inputs, models, inferencer):
    """The captions are those of each system alone; CLIPScore is that of the captioner's CLIP."""
    git, llava = models
    out, scores, page = (inputs / name for name in ("all.csv", "scores.csv", "page.html"))
    code, printed, _ = command(
        "--with", git, inputs / "other.json", llava, "--prompt", llava, "describe the image",
        "--max-new-tokens", 6, "--batch-size", 3, "--out", out, "--scores", scores,
        "--html", page, "--captions", inputs / "captions",
    )  # fmt: skip
    assert code == 0
    names = [NAME, "tiny-git", "other.json", "tiny-llava"]
    photos = [str(inputs / "photos" / f"{i}.png") for i in range(COUNT)]
    ours = inferencer(photos)["predictions"]
    expected = {NAME: [result["caption"] for result in ours], "other.json": OTHERS}
    pictures = [render(scene, 0).image for scene in unseen_scenes(COUNT, minimum=2)]
    for name, model, prompt in (
        ("tiny-git", git, None),
        ("tiny-llava", llava, "describe the image"),
    ):
        single = ImageToTextModel(str(model), prompt)
        single.load()
        expected[name] = single.caption(pictures, max_new_tokens=6)
    frame = pandas.read_csv(out, keep_default_na=False)
    assert frame["system"].tolist() == names * COUNT
    assert frame["image_id"].tolist() == [i for i in range(COUNT) for _ in names]
    for name in names:
        assert frame[frame["system"] == name]["caption"].tolist() == expected[name]

    totals = pandas.read_csv(scores).set_index("system")
    assert totals.index.tolist() == names
    assert totals["images"].tolist() == [COUNT] * len(names)
    assert totals["distinct-captions"]["other.json"] == 3
    assert totals["distinct-words"]["other.json"] == 8
    assert totals["length"]["other.json"] == pytest.approx((2 + 2 + 6 + 2) / 4)
    clip = inferencer.backbone
    seen = clip(torch.stack([clip.preprocess(image) for image in pictures]))[1]
    said = clip.encode_text([f"A photo depicts {caption}" for caption in OTHERS])
    each = 250 * (seen * said).sum(1).clamp(min=0)
    rows = frame[frame["system"] == "other.json"]
    assert rows["CLIPScore"].astype(float).tolist() == pytest.approx(each.tolist(), abs=1e-3)
    assert totals["CLIPScore"]["other.json"] == pytest.approx(each.mean().item(), abs=1e-3)
    assert not {"RefCLIPScore", "CIDEr"} & {*totals}

    table = table_of(printed)
    assert table.index.tolist() == names
    shown = ["CLIPScore", "distinct-captions", "distinct-words", "length"]
    assert [*table] == shown
    for column in shown:
        assert table[column].tolist() == pytest.approx(totals[column].tolist(), abs=0.006)
    assert f"the CLIP of {NAME}, which favors captioners that use the same CLIP" in printed
    assert "no references: the scores do not tell how correct the captions are" in printed
    assert "prompt of tiny-llava: describe the image" in printed

    text = page.read_text()
    assert text.count("data:image/jpeg;base64") == COUNT
    assert text.count("two cats sit on a car") == 1
    assert text.count(expected[NAME][0]) >= 1
    assert "favors captioners" in text
    # The file of the other program is not copied.
    files = sorted(path.name for path in (inputs / "captions").iterdir())
    assert files == [f"{NAME}.json", "tiny-git.json", "tiny-llava.json"]
    written = json.loads((inputs / "captions" / "tiny-git.json").read_text())
    assert [row["caption"] for row in written] == expected["tiny-git"]
    assert [row["image_id"] for row in written] == [*range(COUNT)]


def test_with_references(command, inputs, models, inferencer):
    references, out = inputs / "references.json", inputs / "all.json"
    code, printed, _ = command(
        "--with", inputs / "other.json", "--references", references, "--out", out,
        "--scores", inputs / "scores.jsonl", "--html", inputs / "page.html",
    )  # fmt: skip
    assert code == 0
    metric = CaptionMetric(prefix="", scorers=["BLEU", "ROUGE-L", "CIDEr", "diversity"])
    texts = [[f"a red house {i}", "a dog runs"] for i in range(COUNT)]
    samples = [
        {"image_id": i, "pred_caption": caption, "gt_caption": texts[i]}
        for i, caption in enumerate(OTHERS)
    ]
    metric.process(None, samples)
    expected = metric.evaluate(COUNT)
    rows = [json.loads(line) for line in (inputs / "scores.jsonl").read_text().splitlines()]
    assert [row["system"] for row in rows] == [NAME, "other.json"]
    assert {name: rows[1][name] for name in expected} == pytest.approx(expected)
    assert rows[1]["RefCLIPScore"] > 0
    assert table_of(printed)["CIDEr"]["other.json"] == pytest.approx(expected["CIDEr"], abs=0.006)
    assert "no references" not in printed
    frame = pandas.read_json(out)
    mine = frame[frame["system"] == "other.json"]
    assert mine["CIDEr"].mean() == pytest.approx(expected["CIDEr"])
    text = (inputs / "page.html").read_text()
    assert "a red house 3" in text
    assert f"CIDEr {mine['CIDEr'].iloc[0]:.1f}" in text


def test_scorers_and_another_clip_are_chosen(command, inputs):
    clip = build_clip(inputs / "clip")
    words = ["--with", inputs / "other.json"]
    code, printed, _ = command(*words, "--clip-model", clip)
    assert code == 0
    assert "CLIPScore is computed with the model in the folder clip (--clip-model)" in printed
    code, other, _ = command(*words)
    scores = [table_of(text)["CLIPScore"]["other.json"] for text in (printed, other)]
    assert scores[0] != scores[1]
    code, printed, _ = command(*words, "--scorers", "diversity")
    assert code == 0
    assert [*table_of(printed)] == ["distinct-captions", "distinct-words", "length"]
    assert "CLIPScore is computed" not in printed


def test_a_system_that_fails_leaves_the_others(command, inputs, models):
    """The weights of a model are damaged, which is found when it is loaded."""
    damaged = build_model(inputs / "damaged", "blip")
    (damaged / "model.safetensors").write_bytes(b"damaged")
    out, scores, page = (inputs / name for name in ("all.csv", "scores.csv", "page.html"))
    code, printed, errors = command(
        "--with", damaged, models[0], "--out", out, "--scores", scores, "--html", page,
        "--captions", inputs / "captions",
    )  # fmt: skip
    assert code.startswith(f"damaged failed: the weights of {damaged} cannot be read: ")
    assert "damaged failed" in errors
    frame = pandas.read_csv(out, keep_default_na=False)
    assert frame["system"].tolist() == [NAME, "tiny-git"] * COUNT
    totals = pandas.read_csv(scores).set_index("system")
    assert "cannot be read" in totals["error"]["damaged"]
    assert totals["error"].isna().tolist() == [True, False, True]
    line = next(line for line in printed.splitlines() if line.startswith("damaged"))
    assert line.split()[1:] == ["failed"] * 4
    assert "damaged failed: the weights of" in page.read_text()
    assert not (inputs / "captions" / "damaged.json").exists()


def test_tables_are_written_after_each_system(command, inputs, models, monkeypatch):
    """The process is stopped while the second system runs."""

    def stop(self, *args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageToTextModel, "load", stop)
    out = inputs / "all.jsonl"
    folder = inputs / "captions"
    assert command("--with", models[0], "--out", out, "--captions", folder)[0] == 130
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["system"] for row in rows] == [NAME] * COUNT
    assert [path.name for path in folder.iterdir()] == [f"{NAME}.json"]


def test_images_that_cannot_be_read_are_left_out(command, inputs):
    (inputs / "photos" / "1.png").write_bytes(b"no image")
    code, _, errors = command("--with", inputs / "other.json", "--out", inputs / "all.csv")
    assert code == "1 of 4 images could not be read"
    assert "skipped: " in errors
    frame = pandas.read_csv(inputs / "all.csv")
    assert sorted(set(frame["image_id"])) == [0, 2, 3]
    assert frame[frame["system"] == "other.json"]["caption"].tolist() == [
        OTHERS[i] for i in (0, 2, 3)
    ]


WRONG = {
    "--with {tmp}/nothing": "no folder {tmp}/nothing: a model must be a local folder, or a name",
    "--with {tmp}/nothing.json": "{tmp}/nothing.json",
    "--with {tmp}/photos": "{tmp}/photos is not the folder of a model: it has no config.json",
    "--with {tmp}/photos/0.png": "{tmp}/photos/0.png must be the folder or name of a model",
    "--with {tmp}/few.json": "2 of 4 images have no caption in {tmp}/few.json: ",
    "--with {tmp}/other.json {tmp}/other.json": "given once, got {tmp}/other.json several times",
    "--with {llava}": "tiny-llava (llava) needs a prompt, such as",
    "--with {git} --prompt {llava} x": "must name a model of --with",
    "--with {git} --prompt {git} x --prompt {git} y": "is given twice: pass one prompt per model",
    "--with {tmp}/other.json --prompt {tmp}/other.json x": "the captions of a file are fixed",
    "--with {git} --references {tmp}/few_references.json": "3 of 4 images have no reference in",
    "--with {git} --references {tmp}/nothing.json": "{tmp}/nothing.json",
    "--with {git} --scorers CIDEr": "--scorers CIDEr needs --references FILE",
    "--with {git} --clip-pretrained openai": "needs --clip-model NAME",
    "--with {git} --clip-model ViT-B-32 --scorers diversity": "needs --scorers CLIPScore",
    "--with {git} --out x.txt": "must end in .json, .jsonl, .csv, got x.txt",
    "--with {git} --scores {tmp}/photos": "must end in .json, .jsonl, .csv",
    "--with {git} --html {tmp}/photos": "--html must be a file name",
    "--with {git} --captions {tmp}/other.json": "--captions must be a folder",
    "--with {git} --out x.csv --scores ./x.csv": "two outputs would be written to",
    "--with {tmp}/other.json --out {tmp}/other.json": "{tmp}/other.json would replace an input",
    "--with {git} {tmp}/tiny-git.json --captions {tmp}": "{tmp}/tiny-git.json would replace",
    "--with {git} --rerank-weight nan": "`rerank_weight` must be a finite number",
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_inputs_are_reported_before_work_starts(command, inputs, models, words, monkeypatch):
    def work(*args, **kwargs):
        raise AssertionError("images were read")

    monkeypatch.setattr("pcm_plugin.commands.comparing.read_images", work)
    rows = json.loads((inputs / "other.json").read_text())
    (inputs / "few.json").write_text(json.dumps(rows[:2]))
    (inputs / "tiny-git.json").write_text(json.dumps(rows))
    write_coco_captions(inputs / "few_references.json", [(2, "2.png", ["a dog"])])
    places = {"tmp": inputs, "git": models[0], "llava": models[1]}
    code, printed, _ = command(*words.format(**places).split())
    assert WRONG[words].format(**places) in str(code)
    assert printed == ""


def test_the_command_runs_as_a_process(inputs, models):
    words = [NAME, "--with", models[0], inputs / "other.json", "--images", inputs / "photos"]
    words += ["--device", "cpu", "--max-new-tokens", 4]
    result = run("compare", *words, log=inputs / "log", launcher=False)
    assert result.code == 0, result.output
    assert "Traceback" not in result.output
    assert {"system", "CLIPScore", "tiny-git", "other.json"} <= {*result.output.split()}
