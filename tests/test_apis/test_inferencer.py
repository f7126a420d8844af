"""Tests of the inferencer with the captioner that comes with the package."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from pcm_plugin.apis import CaptionInferencer, register_models
from pcm_plugin.apis.zoo import find_weights
from pcm_plugin.errors import MissingFileError, UserError
from pcm_plugin.models.backbones import OpenCLIPBackbone
from pcm_plugin.models.captioner_file import load_captioner
from pcm_plugin.models.decoding import CaptionHypothesis, DecodingConfig
from pcm_plugin.models.decoding.reranking import add_similarities, rerank
from pcm_plugin.structures import DataSample
from pcm_plugin.toyworld.render import render
from pcm_plugin.toyworld.world import unseen_scenes
from tests.mmpretrain_models import skip_without_mmpretrain_models
from tests.test_tools.commands import run

NAME = "pcm-net_toy"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with six images of the toy world."""
    path = tmp_path_factory.mktemp("pictures")
    for i, scene in enumerate(unseen_scenes(6, minimum=2)):
        render(scene, 0).image.save(path / f"{i}.png")
    return path


@pytest.fixture(scope="module")
def inferencer():
    return CaptionInferencer(NAME, device="cpu", show_progress=False)


def captions(found):
    return [prediction["caption"] for prediction in found["predictions"]]


def test_all_input_types_give_the_same_captions(inferencer, folder):
    files = sorted(folder.iterdir())
    images = [Image.open(file) for file in files]
    expected = captions(inferencer(folder))
    assert len(expected) == 6
    assert len(set(expected)) > 1
    for inputs in (
        str(folder),
        files,
        tuple(map(str, files)),
        images,
        [np.asarray(image) for image in images],
        (file for file in files),
        [folder],
        [files[:2], images[2], *files[3:]],
    ):
        assert captions(inferencer(inputs, batch_size=4)) == expected
    assert captions(inferencer(files[0])) == expected[:1]
    assert captions(inferencer(np.asarray(images[0]))) == expected[:1]
    grey = np.asarray(images[0].convert("L"))
    assert captions(inferencer(grey)) == captions(inferencer(images[0].convert("L")))


def test_iterables_are_read_lazily(inferencer, folder):
    read = []

    def items():
        for file in sorted(folder.iterdir()):
            read.append(file)
            yield file

    stream = inferencer.stream(items(), batch_size=2)
    image, sample = next(stream)
    assert len(read) == 2
    assert isinstance(image, Image.Image)
    assert sample.img_path == str(read[0])
    assert len(list(stream)) == 5


def test_predictions_have_captions_concepts_and_patches(inferencer, folder):
    found = inferencer(folder, num_captions=3, draw=True)
    json.dumps(found["predictions"])
    assert [p["image"] for p in found["predictions"]] == [str(f) for f in sorted(folder.iterdir())]
    for prediction, picture in zip(found["predictions"], found["visualization"], strict=True):
        own = prediction["captions"]
        assert own[0] == {"caption": prediction["caption"], "log_prob": prediction["log_prob"]}
        assert [c["log_prob"] for c in own] == sorted((c["log_prob"] for c in own), reverse=True)
        assert len({c["caption"] for c in own}) == 3
        probabilities = [concept["probability"] for concept in prediction["concepts"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert len(probabilities) == 5
        words = {concept["concept"] for concept in prediction["concepts"]}
        assert 1 <= len(prediction["patches"]) <= 5
        assert all(0 <= p["patch"] < 49 and p["concept"] in words for p in prediction["patches"])
        assert min(picture.size) > 200
    samples = inferencer(folder, return_datasamples=True)["predictions"]
    assert all(isinstance(sample, DataSample) for sample in samples)


def test_decoding_settings_are_arguments_of_the_call(inferencer, folder):
    usual = captions(inferencer(folder))
    longer = captions(inferencer(folder, min_len=9))
    assert all(len(caption.split()) >= 9 for caption in longer)
    assert all(len(c.split()) <= 3 for c in captions(inferencer(folder, max_len=3)))
    wide = inferencer(folder, beam_size=8)["predictions"]
    narrow = inferencer(folder, beam_size=1)["predictions"]
    assert sum(p["log_prob"] for p in wide) > sum(p["log_prob"] for p in narrow)
    assert captions(inferencer(folder)) == usual


def test_reranking_orders_by_likelihood_and_similarity(inferencer, folder):
    plain = inferencer(folder, beam_size=5, num_captions=5)["predictions"]
    clip = inferencer.backbone
    found = inferencer(folder, beam_size=5, num_captions=5, rerank_weight=30.0)["predictions"]
    assert captions({"predictions": found}) != captions({"predictions": plain})
    for before, after in zip(plain, found, strict=True):
        assert {c["caption"] for c in before["captions"]} == {
            c["caption"] for c in after["captions"]
        }
        sums = [c["log_prob"] + 30 * c["similarity"] for c in after["captions"]]
        assert sums == sorted(sums, reverse=True)
        with Image.open(after["image"]) as image, torch.inference_mode():
            seen = clip(clip.preprocess(image).unsqueeze(0))[1]
            said = clip.encode_text([after["caption"]])
        assert after["captions"][0]["similarity"] == pytest.approx(float(seen @ said.T), abs=1e-5)


def test_reranking_by_hand():
    captions = [
        [CaptionHypothesis("x", -1.0), CaptionHypothesis("y", -2.0), CaptionHypothesis("z", -9.0)]
    ]
    axes = {"x": [0.0, 1.0], "y": [3.0, 0.0], "z": [1.0, 1.0]}

    def encode(texts):
        return torch.tensor([axes[text] for text in texts])

    (found,) = add_similarities(captions, torch.tensor([[5.0, 0.0]]), encode)
    assert [h.similarity for h in found] == pytest.approx([0.0, 1.0, 0.5**0.5])
    decoding = DecodingConfig(rerank_weight=2.0)
    found = [rerank(found, decoding)]
    assert [h.caption for h in found[0]] == ["y", "x", "z"]
    assert found[0][:2] == [CaptionHypothesis("y", -2.0, 1.0), CaptionHypothesis("x", -1.0, 0.0)]
    # With a length penalty the score of the search counts, not the log-probability.
    captions = [[CaptionHypothesis("y", -2.0, score=-1.0), CaptionHypothesis("x", -9.0, score=1.5)]]
    (found,) = add_similarities(captions, torch.tensor([[5.0, 0.0]]), encode)
    found = [rerank(found, decoding)]
    assert found == [
        [CaptionHypothesis("x", -9.0, 0.0, 1.5), CaptionHypothesis("y", -2.0, 1.0, -1.0)]
    ]


def test_reranking_by_ranks(inferencer, folder):
    plain = inferencer(folder, beam_size=5, num_captions=5)["predictions"]
    found = inferencer(folder, beam_size=5, num_captions=5, rerank="ranks")["predictions"]
    assert captions({"predictions": found}) != captions({"predictions": plain})
    for before, after in zip(plain, found, strict=True):
        rows = after["captions"]
        assert {c["caption"] for c in before["captions"]} == {c["caption"] for c in rows}
        for row in rows:
            # The end of the caption is a token, too, unless the caption has the maximum length.
            length = min(len(row["caption"].split()) + 1, inferencer.model.decoding.max_len)
            assert row["mean_log_prob"] == pytest.approx(row["log_prob"] / length, rel=1e-4)

        def key(row, rows=rows):
            names = ("mean_log_prob", "similarity")
            ranks = [sum(other[name] > row[name] for other in rows) for name in names]
            return sum(ranks), -row["log_prob"]

        assert rows == sorted(rows, key=key)


def test_a_second_clip_is_a_third_scorer(inferencer, folder):
    name = "local-dir:benchmarks/taught_clip"
    settings = {"beam_size": 5, "num_captions": 5, "rerank": "ranks"}
    one = inferencer(folder, **settings)["predictions"]
    settings["rerank_clip"] = name
    two = inferencer(folder, **settings)["predictions"]
    clip = OpenCLIPBackbone(name).eval()
    changed = 0
    for before, after in zip(one, two, strict=True):
        rows = after["captions"]
        changed += [row["caption"] for row in before["captions"]] != [r["caption"] for r in rows]
        with Image.open(after["image"]) as image, torch.inference_mode():
            seen = clip(clip.preprocess(image).unsqueeze(0))[1]
            said = clip.encode_text([row["caption"] for row in rows])
        cosines = torch.nn.functional.cosine_similarity(seen, said)
        assert [row["second_similarity"] for row in rows] == pytest.approx(
            cosines.tolist(), abs=1e-5
        )

        def key(row, rows=rows):
            names = ("mean_log_prob", "similarity", "second_similarity")
            ranks = [sum(other[name] > row[name] for other in rows) for name in names]
            return sum(ranks), -row["log_prob"]

        assert rows == sorted(rows, key=key)
    assert changed
    # With features of a store, the images are read from their files.
    decoding = inferencer.model.decoding.updated(settings)
    samples = [DataSample(metainfo={"img_path": row["image"]}) for row in two]
    pixels = []
    for row in two:
        with Image.open(row["image"]) as image:
            pixels.append(inferencer.backbone.preprocess(image))
    with torch.inference_mode():
        _, feats = inferencer.backbone(torch.stack(pixels))
        patches, _ = inferencer.model.extract_feat(torch.stack(pixels))
        inputs = {"patch_feats": patches, "global_feats": feats, "decoding": decoding}
        found = inferencer.model.predict(**inputs, data_samples=samples)
        assert [s.pred_caption for s in found] == [row["caption"] for row in two]
        with pytest.raises(UserError, match="`rerank_clip` needs the images themselves: set data_"):
            inferencer.model.predict(**inputs)


def test_the_length_penalty_is_an_argument_of_the_call(inferencer, folder):
    best = inferencer(folder, beam_size=5, num_captions=5)["predictions"]
    long = inferencer(folder, beam_size=5, num_captions=5, length_penalty=3.0)["predictions"]
    words = [sum(len(p["caption"].split()) for p in found) for found in (best, long)]
    assert words[1] > words[0]
    for prediction in long:
        for found in prediction["captions"]:
            # With the stop token, which a caption of the maximum length does not have.
            length = min(len(found["caption"].split()) + 1, 20)
            assert found["score"] == pytest.approx(found["log_prob"] / length**3, rel=1e-3)
    with pytest.raises(ValueError, match="`length_penalty` must be a finite number, got `nan`"):
        inferencer(folder, length_penalty=float("nan"))


def test_exif_orientation_is_applied(inferencer, folder, tmp_path):
    with Image.open(folder / "0.png") as image:
        upright = captions(inferencer(image))
        exif = Image.Exif()
        exif[0x0112] = 6  # rotate by 90 degrees clockwise
        image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    assert captions(inferencer(tmp_path / "turned.png")) == upright
    with Image.open(tmp_path / "turned.png") as image:
        assert captions(inferencer(image)) == upright


def test_invalid_inputs_are_rejected(inferencer, folder, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    cut = (folder / "0.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(cut[: len(cut) // 2])
    for inputs, kind, message in (
        (tmp_path / "nowhere.png", FileNotFoundError, "nowhere"),
        (tmp_path / "broken.png", ValueError, r"broken\.png is not an image"),
        (tmp_path / "cut.png", ValueError, r"cut\.png cannot be decoded"),
        (tmp_path / "empty", FileNotFoundError, "contains no images"),
        ("https://example.org/a.png", ValueError, "is a URL"),
        (np.zeros((4, 4, 3)), ValueError, "of float64"),
        (np.zeros((4, 4, 7), np.uint8), ValueError, r"\(4, 4, 7\)"),
        (3, TypeError, "got int"),
        (torch.zeros(3, 4, 4), TypeError, "got Tensor"),
    ):
        with pytest.raises(kind, match=message):
            inferencer(inputs)
    for settings, message in (
        ({"beam_size": 0}, "`beam_size` must be at least 1, got `0`"),
        ({"num_captions": 4}, "`num_captions` must be from 1 to beam_size=3, got `4`"),
        ({"min_len": 20}, "`min_len` must be from 0 .* got `20`"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"beams": 3}, "beams"),
    ):
        with pytest.raises(ValueError, match=message):
            inferencer(folder, **settings)
    found = inferencer([folder / "0.png", tmp_path / "broken.png"], skip_invalid=True)
    assert "caption" in found["predictions"][0]
    assert "is not an image" in found["predictions"][1]["error"]
    with pytest.raises(ValueError, match=r"must be one of .*, got 'pcm-net_moon'"):
        CaptionInferencer("pcm-net_moon")
    with pytest.raises(ValueError, match="`weights` must be set"):
        CaptionInferencer()


def test_mmengine_builds_the_inferencer_by_name(inferencer, folder):
    from mmengine.registry import INFERENCERS

    built = INFERENCERS.build(dict(type="pcm_plugin.CaptionInferencer", model=NAME, device="cpu"))
    assert captions(built(folder / "1.png")) == captions(inferencer(folder / "1.png"))


def test_mmpretrain_finds_the_captioner_by_name(inferencer, folder):
    from mmengine.registry import DefaultScope
    from mmpretrain import inference_model, list_models

    skip_without_mmpretrain_models()
    # A runner of an earlier test leaves its scope, in which mmpretrain's transforms are unknown.
    DefaultScope._instance_dict.clear()
    assert NAME in register_models()
    assert register_models() == register_models()
    assert NAME in list_models(task="Image Caption")
    file = str(folder / "1.png")
    said = inference_model(NAME, file, device="cpu")["pred_caption"]
    assert said == captions(inferencer(file))[0]


def test_the_command_prints_and_writes_captions(folder, tmp_path, inferencer):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for file in sorted(folder.iterdir())[:2]:
        (pictures / file.name).write_bytes(file.read_bytes())
    out, sheet, page = (tmp_path / "new" / name for name in ("c.json", "s.png", "p.html"))
    command = [NAME, pictures, "--num-captions", 2, "--length-penalty", 2, "--out", out]
    command += ["--sheet", sheet, "--html", page]
    result = run("caption", *command, log=tmp_path / "log", launcher=False)
    assert result.code == 0, result.output
    expected = inferencer(pictures, num_captions=2, length_penalty=2.0)["predictions"]
    for prediction in expected:
        assert f"{prediction['image']}\t{prediction['caption']}" in result.output
    rows = json.loads(out.read_text())
    assert [row["caption"] for row in rows] == [p["caption"] for p in expected]
    assert [row["image_id"] for row in rows] == [0, 1]
    assert math.isclose(rows[0]["log_prob"], expected[0]["log_prob"], rel_tol=1e-4)
    with Image.open(sheet) as drawn:
        assert drawn.width > 1000
    assert page.read_text().count('<div class="card">') == 2
    (pictures / "broken.jpg").write_bytes(b"no")
    result = run("caption", NAME, pictures, "--out", out, log=tmp_path / "log", launcher=False)
    assert result.code == 1
    # Every entry of a COCO results file has a caption: invalid images are only printed.
    assert [row["image_id"] for row in json.loads(out.read_text())] == [0, 1]
    assert "1 of 3 images could not be read" in result.output
    assert captions(inferencer(pictures / "0.png"))[0] in result.output
    for wrong, message in (
        ([tmp_path / "deep" / NAME, pictures], "the model must be one of"),
        ([NAME, tmp_path / "nowhere"], "no such file or folder"),
        (["pcm-net_moon", pictures], "the model must be one of"),
        ([tmp_path / "no.safetensors", pictures], "no captioner at"),
    ):
        result = run("caption", *wrong, log=tmp_path / "log", launcher=False)
        assert (result.code, message in result.output) == (1, True)
        assert "Traceback" not in result.output


def test_a_config_with_a_checkpoint_gives_the_same_captions(inferencer, folder, tmp_path):
    """The checkpoint has a vocabulary and concepts in separate files, as after a training."""
    from pcm_plugin.formats.concept_set import save_concepts
    from pcm_plugin.toyworld import ASSETS

    model = load_captioner(find_weights(NAME))
    torch.save({"state_dict": model.state_dict()}, tmp_path / "best.pth")
    model.vocabulary.to_file(tmp_path / "vocabulary.txt")
    save_concepts(
        tmp_path / "c.safetensors", model.neck.concept_words, model.neck.concept_bank.embeddings
    )
    cfg = Config.fromfile("configs/pcm_toy.py")
    cfg.merge_from_dict(
        {
            "model.vocabulary": str(tmp_path / "vocabulary.txt"),
            "model.neck.concepts": str(tmp_path / "c.safetensors"),
            "clip.model_name": f"local-dir:{ASSETS / 'clip'}",
        }
    )
    own = CaptionInferencer(cfg, tmp_path / "best.pth", "cpu", show_progress=False)
    assert captions(own(folder)) == captions(inferencer(folder))
    options = ["model.vocabulary", "model.neck.concepts", "clip.model_name"]
    values = [cfg.model.vocabulary, cfg.model.neck.concepts, cfg.clip.model_name]
    changes = [f"{key}={value}" for key, value in zip(options, values, strict=True)]
    changes.append("model.decoding.rerank_weight=1.5")
    out = tmp_path / "away" / "captioner.safetensors"
    command = ["configs/pcm_toy.py", tmp_path / "best.pth", "--out", out]
    result = run(
        "export", *command, "--cfg-options", *changes, log=tmp_path / "log", launcher=False
    )
    assert result.code == 0, result.output
    moved = (tmp_path / "away").rename(tmp_path / "moved")
    weights = {**model.state_dict()}
    weights["neck.matcher.clip_head.proj"] = -weights["neck.matcher.clip_head.proj"]
    torch.save({"state_dict": weights}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth was trained on features of another CLIP"):
        CaptionInferencer(cfg, tmp_path / "other.pth", "cpu", show_progress=False)
    for name in ("vocabulary.txt", "c.safetensors", "best.pth"):
        (tmp_path / name).unlink()
    own = CaptionInferencer(moved / out.name, device="cpu", show_progress=False)
    assert own.model.decoding.rerank_weight == 1.5
    assert captions(own(folder, rerank_weight=0.0)) == captions(inferencer(folder))


def test_a_config_by_name_with_a_checkpoint(inferencer, folder, tmp_path, monkeypatch):
    from pcm_plugin.formats.concept_set import save_concepts

    model = load_captioner(find_weights(NAME))
    monkeypatch.chdir(tmp_path)
    data = Path("data/toy/town")
    data.mkdir(parents=True)
    torch.save({"state_dict": model.state_dict()}, "best.pth")
    model.vocabulary.to_file(data / "vocabulary.txt")
    save_concepts(
        data / "concepts.safetensors", model.neck.concept_words, model.neck.concept_bank.embeddings
    )
    own = CaptionInferencer("pcm_toy", "best.pth", "cpu", show_progress=False)
    assert captions(own(folder)) == captions(inferencer(folder))
    with pytest.raises(MissingFileError, match=r"did you mean (.* or )*pcm_toy"):
        CaptionInferencer("pcm_tooy", "best.pth")
    for captioner in (NAME, "captioner.safetensors", find_weights(NAME)):
        with pytest.raises(UserError, match="`weights` must not be set with model="):
            CaptionInferencer(captioner, "best.pth")


def test_the_identity_covers_settings_that_are_not_weights():
    inferencer = CaptionInferencer(weights="pcm-net_toy")
    before = inferencer.identity()
    assert before == CaptionInferencer(weights="pcm-net_toy").identity()
    inferencer.model.neck.matcher.temperature = 0.5
    changed = inferencer.identity()
    inferencer.model.backbone.pretrained = "openai"
    assert len({before, changed, inferencer.identity()}) == 3
