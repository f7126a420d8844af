import json

import pytest
import torch
from PIL import Image

from pcm_plugin.datasets.coco import write_coco_captions
from pcm_plugin.evaluation import CaptionMetric
from pcm_plugin.evaluation.clip_score import clip_scores
from pcm_plugin.registry import MODELS
from tests.builders import build_clip
from tests.test_tools.commands import run

REFERENCES = {
    7: ["A dog runs on the grass.", "the dog is running"],
    8: ["a red car in a street", "a car parked at the road"],
    9: ["two people ride horses", "people on two brown horses"],
}
CAPTIONS = {7: "the dog runs on grass", 8: "a red car parked in a street", 9: "two brown horses"}


@pytest.fixture
def files(tmp_path):
    references, captions = tmp_path / "references.json", tmp_path / "captions.json"
    write_coco_captions(references, [(i, f"{i}.png", texts) for i, texts in REFERENCES.items()])
    rows = [{"image_id": i, "caption": text} for i, text in CAPTIONS.items()]
    captions.write_text(json.dumps(rows))
    return tmp_path, captions, references


def score(folder, *args):
    return run("score.py", *args, log=folder / "log.txt", launcher=False)


def expected(**settings):
    metric = CaptionMetric(prefix="", **settings)
    samples = [
        {"image_id": i, "pred_caption": CAPTIONS[i], "gt_caption": texts}
        for i, texts in REFERENCES.items()
    ]
    metric.process(None, samples)
    return metric.evaluate(3)


def test_a_results_file_is_scored(files):
    folder, captions, references = files
    scorers = ["BLEU", "ROUGE-L", "CIDEr", "diversity"]
    result = score(
        folder, captions, references, "--scorers", *scorers, "--out", folder / "scores.json",
        "--per-image", folder / "each.json",
    )  # fmt: skip
    assert result.code == 0, result.output
    scores = json.loads((folder / "scores.json").read_text())
    assert scores == expected(scorers=scorers)
    assert f"CIDEr{scores['CIDEr']:20.4f}" in result.output
    assert len(json.loads((folder / "each.json").read_text())) == 3


def test_groups_are_scored_by_themselves_too(files):
    folder, captions, references = files
    content = json.loads(references.read_text())
    for image in content["images"]:
        image["kind"] = "animals" if image["id"] != 8 else "things"
    references.write_text(json.dumps(content))
    command = [captions, references, "--groups", references, "--scorers", "ROUGE-L"]
    result = score(folder, *command, "--group-field", "kind", "--out", folder / "scores.json")
    assert result.code == 0, result.output
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["ROUGE-L"] == expected(scorers=["ROUGE-L"])["ROUGE-L"]
    assert scores["ROUGE-L"] == pytest.approx(
        (2 * scores["animals/ROUGE-L"] + scores["things/ROUGE-L"]) / 3
    )
    assert f"animals/ROUGE-L{scores['animals/ROUGE-L']:10.4f}" in result.output
    result = score(folder, *command)
    assert (result.code, "none of its 3 images has 'domain'" in result.output) == (1, True)


def test_karpathys_file_and_paths_for_ids(files):
    folder, captions, _ = files
    karpathy = folder / "karpathy.json"
    images = [
        {
            "filename": f"COCO_val2014_{i:012d}.jpg",
            "split": "val" if i == 9 else "test",
            "sentences": [{"raw": text, "sentid": f"{i}{n}"} for n, text in enumerate(texts)],
        }
        for i, texts in REFERENCES.items()
    ]
    karpathy.write_text(json.dumps({"images": images}))
    rows = [
        {"image_id": f"val2014/COCO_val2014_{i:012d}.jpg", "caption": text}
        for i, text in CAPTIONS.items()
    ]
    captions.write_text(json.dumps(rows))
    result = score(folder, captions, karpathy, "--out", folder / "scores.json")
    assert result.code == 0, result.output
    assert "1 of 3 captions have no reference" in result.output
    two = CaptionMetric(prefix="")
    two.process(
        None,
        [{"image_id": i, "pred_caption": CAPTIONS[i], "gt_caption": REFERENCES[i]} for i in (7, 8)],
    )
    assert json.loads((folder / "scores.json").read_text()) == two.evaluate(2)


def test_clip_score_looks_at_the_images(files):
    folder, captions, references = files
    for i in REFERENCES:
        Image.new("RGB", (20, 20), (9 * i, 200 - 20 * i, 90)).save(folder / f"{i}.png")
    name = build_clip(folder / "clip")
    command = [captions, references, "--scorers", "CLIPScore", "--images", folder]
    result = score(folder, *command, "--model", name, "--out", folder / "scores.json")
    assert result.code == 0, result.output
    clip = MODELS.build({"type": "pcm_plugin.OpenCLIPBackbone", "model_name": name}).eval()
    images = [clip.preprocess(Image.open(folder / f"{i}.png")) for i in REFERENCES]
    seen = clip(torch.stack(images))[1]
    wanted = clip_scores(seen, list(CAPTIONS.values()), list(REFERENCES.values()), clip).total
    found = json.loads((folder / "scores.json").read_text())
    assert found == pytest.approx(wanted, rel=1e-5)
    (folder / "8.png").unlink()
    result = score(folder, *command, "--model", name)
    assert result.code == 1
    assert "1 of 3 images are missing" in result.output


def test_wrong_inputs_are_named(files):
    folder, captions, references = files
    bad = folder / "bad.json"
    for content, message in (
        ("{", "no results file"),
        ("{}", "it should be"),
        ('[{"image_id": 1}]', "entry 0"),
        ('[{"image_id": 1.5, "caption": "a"}]', "no image_id"),
        ('[{"image_id": 7, "caption": "a"}, {"image_id": 7, "caption": "b"}]', "two captions"),
        ('[{"image_id": 70, "caption": "a"}]', "no image of"),
    ):
        bad.write_text(content)
        result = score(folder, bad, references)
        assert result.code == 1
        assert message in result.output
        assert "Traceback" not in result.output
    result = score(folder, folder / "nowhere.json", references)
    assert (result.code, "nowhere.json" in result.output) == (1, True)
    result = score(folder, captions, captions)
    assert (result.code, "Traceback" in result.output) == (1, False)
    result = score(folder, captions, references, "--scorers", "CLIPScore")
    assert (result.code, "--images FOLDER and --model" in result.output) == (2, True)
