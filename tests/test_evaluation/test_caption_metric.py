import contextlib
import io
import json
import logging
import math

import pytest
import torch
from mmengine.dataset import default_collate
from mmengine.evaluator import Evaluator
from mmpretrain.structures import DataSample
from pycocotools.coco import COCO
from torch.utils.data import DataLoader

from pcm_plugin.evaluation.scorers import SCORERS
from pcm_plugin.formats.cleaning import clean_text
from pcm_plugin.formats.coco import write_coco_captions
from pcm_plugin.formats.subword_vocabulary import SubwordVocabulary
from pcm_plugin.registry import DATASETS, METRICS, MODELS
from tests.builders import build_clip, build_store

REFERENCES = {
    7: ["A dog runs on the grass.", "the dog is running"],
    8: ["a red car in a street", "a car parked at the road"],
    9: ["two people ride horses", "people on two brown horses"],
}


def score(captions, own=REFERENCES, **kwargs):
    metric = METRICS.build({"type": "pcm_plugin.CaptionMetric", **kwargs})
    samples = [{"image_id": i, "pred_caption": text, "gt_caption": own[i]} for i, text in captions]
    metric.process(None, samples)
    return metric.evaluate(len({str(i) for i, _ in captions}))


def test_a_caption_equal_to_a_reference_has_the_maximum_score():
    scores = score([(i, texts[0].upper()) for i, texts in REFERENCES.items()])
    for name in ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L"):
        assert scores[f"caption/{name}"] == pytest.approx(100, abs=1e-3)
    assert set(scores) == {f"caption/BLEU-{n}" for n in (1, 2, 3, 4)} | {
        "caption/ROUGE-L",
        "caption/CIDEr",
        "caption/CIDEr-D",
    }
    assert scores["caption/CIDEr-D"] == scores["caption/CIDEr"] > 0


def test_scores_computed_by_hand():
    references = {1: ["a b c d"], 2: ["e f g h"]}
    scores = score([(1, "a b x d"), (2, "e f g h")], references)
    assert scores["caption/BLEU-1"] == pytest.approx(100 * 7 / 8, abs=1e-3)
    assert scores["caption/BLEU-2"] == pytest.approx(100 * math.sqrt(7 / 8 * 4 / 6), abs=1e-3)
    assert scores["caption/ROUGE-L"] == pytest.approx(100 * (3 / 4 + 1) / 2, abs=1e-3)
    # Every n-gram is in one of two images, so all weigh log 2. Image 1 shares 3 of 4 words
    # (cosine 3/4) and 1 of 3 pairs; image 2 all, 10 by definition.
    assert scores["caption/CIDEr"] == pytest.approx(100 * 10 * ((3 / 4 + 1 / 3) / 4 + 1) / 2)


def test_padding_of_the_sampler_counts_once_and_ids_may_be_anything():
    references = {("x", 1): ["a b c d"], "n2": ["e f g h"], 3: ["i j k l"]}
    captions = [(("x", 1), "a b x d"), ("n2", "e f g h"), (3, "i j k k")]
    assert score([*captions, captions[0], captions[0]], references) == score(captions, references)


def test_data_samples_and_tensor_ids_are_accepted():
    metric = METRICS.build({"type": "pcm_plugin.CaptionMetric", "scorers": ["BLEU"]})
    sample = DataSample(metainfo={"image_id": torch.tensor(3)})
    sample.pred_caption, sample.gt_caption = "a b c d", "a b c d"
    metric.process(None, [sample, sample])
    assert metric.evaluate(1)["caption/BLEU-4"] == pytest.approx(100, abs=1e-3)


def test_markup_and_invisible_characters_do_not_change_scores():
    references = {1: ["a man&#39;s re\u200ed car<br>"], 2: ["two dogs &amp; a \uff43at"]}
    captions = [(1, "a man's red car"), (2, "two dogs & a cat\ufeff")]
    assert score(captions, references)["caption/BLEU-4"] == pytest.approx(100, abs=1e-3)


def test_nothing_is_printed(capsys):
    score([(i, "a dog") for i in REFERENCES])
    assert capsys.readouterr().out == ""


def test_a_failing_scorer_is_logged_and_the_others_are_computed(monkeypatch, logged):
    def fails(references, captions):
        raise OSError("no such program")

    monkeypatch.setitem(SCORERS, "ROUGE-L", fails)
    scores = score([(i, "a dog") for i in REFERENCES])
    assert math.isnan(scores.pop("caption/ROUGE-L"))
    assert {"caption/BLEU-4", "caption/CIDEr"} < set(scores)
    assert not any(map(math.isnan, scores.values()))
    errors = [r.getMessage() for r in logged.records if r.levelno == logging.ERROR]
    assert errors == ["scorer ROUGE-L failed: OSError: no such program"]


def test_images_without_reference_are_not_scored(logged):
    references = {**REFERENCES, 10: []}
    with_it = score([(i, "a dog runs") for i in references], references)
    assert with_it == score([(i, "a dog runs") for i in REFERENCES])
    assert "1 of 4 images have no reference" in logged.text


def test_empty_captions_score_zero():
    scores = score([(i, "") for i in REFERENCES])
    assert all(value == pytest.approx(0, abs=1e-3) for value in scores.values())


def test_captions_are_written_in_coco_results_form(tmp_path):
    path = tmp_path / "new" / "captions.json"
    references = {"42": ["a b"], "007": ["c d"], "n1": ["e f"]}
    score([("42", "A b."), ("007", "c"), ("n1", "e"), ("42", "A b.")], references, outfile=path)
    assert json.loads(path.read_text()) == [
        {"image_id": 42, "caption": "A b."},
        {"image_id": "007", "caption": "c"},
        {"image_id": "n1", "caption": "e"},
    ]


def test_invalid_arguments_are_reported(tmp_path):
    def build(**settings):
        METRICS.build({"type": "pcm_plugin.CaptionMetric", **settings})

    for settings, message in (
        ({"scorers": ["METEOUR"]}, "METEOUR"),
        ({"tokenizer": "spacy"}, "'ptb'"),
        ({"scorers": ["CLIPScore"]}, "clip=dict"),
    ):
        with pytest.raises(ValueError, match=message):
            build(**settings)
    for key in ("ann_file", "train_captions"):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            build(**{key: tmp_path / "nowhere.json"})
    metric = METRICS.build({"type": "pcm_plugin.CaptionMetric"})
    with pytest.raises(KeyError, match="pred_caption"):
        metric.process(None, [{"image_id": 1, "gt_caption": ["a"]}])


def write_references(path, references):
    write_coco_captions(path, [(i, f"{i}.jpg", texts) for i, texts in references.items()])
    return path


def test_references_of_a_file_replace_those_of_the_samples(tmp_path):
    path = write_references(tmp_path / "references.json", REFERENCES)
    captions = [(i, texts[0]) for i, texts in REFERENCES.items()]
    nothing = dict.fromkeys(REFERENCES, "nothing of the kind")
    assert score(captions, nothing, ann_file=path) == score(captions)
    # Images are matched by number, text or file.
    spelt = [("images/7.jpg", captions[0][1]), ("8", captions[1][1])]
    spelt.append(("COCO_val2014_000000000009.jpg", captions[2][1]))
    gone = dict.fromkeys([name for name, _ in spelt], "nothing")
    assert score(spelt, gone, ann_file=path) == score(captions)


def test_two_metrics_of_one_evaluator_score_their_own_images(tmp_path, logged):
    others = {i + 100: texts for i, texts in REFERENCES.items()}
    files = {
        "town": write_references(tmp_path / "town.json", REFERENCES),
        "country": write_references(tmp_path / "country.json", others),
    }
    evaluator = Evaluator(
        [
            {
                "type": "pcm_plugin.CaptionMetric",
                "ann_file": path,
                "prefix": name,
                "outfile": tmp_path / f"{name}_captions.json",
            }
            for name, path in files.items()
        ]
    )
    samples = [{"image_id": i, "pred_caption": texts[0]} for i, texts in REFERENCES.items()]
    samples += [{"image_id": i, "pred_caption": "a dog"} for i in others]
    evaluator.process(samples)
    scores = evaluator.evaluate(len(samples))
    assert scores["town/BLEU-4"] == pytest.approx(100, abs=1e-3)
    assert scores["country/BLEU-4"] < 1
    assert "3 of 6 images have no reference in" in logged.text
    # COCO's tools load each file with its references.
    for name, path in files.items():
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(path).loadRes(str(tmp_path / f"{name}_captions.json"))
        assert len(coco.getAnnIds()) == 3


def test_the_scores_of_each_image_are_written(tmp_path):
    path = tmp_path / "new" / "each.json"
    captions = [(7, REFERENCES[7][0]), (8, "a red car"), (9, "nothing")]
    scores = score(captions, per_image=path, scorers=["ROUGE-L", "CIDEr"])
    rows = json.loads(path.read_text())
    assert [row["image_id"] for row in rows] == [7, 8, 9]
    assert rows[1]["caption"] == "a red car"
    assert rows[1]["references"] == REFERENCES[8]
    for name in ("ROUGE-L", "CIDEr"):
        mean = sum(row[name] for row in rows) / 3
        assert mean == pytest.approx(scores[f"caption/{name}"])
    assert rows[0]["ROUGE-L"] == pytest.approx(100)
    assert rows[2]["CIDEr"] == 0


def write_nocaps(path, references, domains):
    """Write references in the format of NoCaps: COCO JSON with a domain per image."""
    images = [
        {"id": i, "open_images_id": f"f{i}", "file_name": f"f{i}.jpg", "domain": domains[i]}
        for i in references
    ]
    texts = [(i, text) for i, own in references.items() for text in own]
    annotations = [{"id": n, "image_id": i, "caption": text} for n, (i, text) in enumerate(texts)]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def test_each_group_is_scored_like_a_separate_data_set(tmp_path):
    references = {**REFERENCES, 10: ["a boat on the sea"], 11: ["a man and a boat", "a man"]}
    domains = dict.fromkeys((7, 9, 11), "near-domain") | dict.fromkeys((8, 10), "in-domain")
    file = write_nocaps(tmp_path / "nocaps.json", references, domains)
    captions = [(7, "a dog on grass"), (8, "a red car"), (9, "brown horses"), (10, "a boat on sea")]
    captions.append((11, "a man on a boat"))
    each = tmp_path / "each.json"
    scores = score(captions, references, groups=file, per_image=each)
    wanted = score(captions, references)
    for name in ("near-domain", "in-domain"):
        own = [(i, text) for i, text in captions if domains[i] == name]
        alone = score(own, references)
        wanted |= {key.replace("caption/", f"caption/{name}/"): x for key, x in alone.items()}
    assert scores == wanted
    assert scores["caption/in-domain/CIDEr"] != scores["caption/CIDEr"]
    rows = json.loads(each.read_text())
    assert {row["image_id"]: row["group"] for row in rows} == domains
    # The file of the groups may contain the references too.
    assert score(captions, dict.fromkeys(references, "x"), ann_file=file, groups=file) == wanted


def test_images_without_a_group_count_in_the_overall_scores(tmp_path, logged):
    file = write_nocaps(tmp_path / "nocaps.json", REFERENCES, {7: "in", 8: "in", 9: None})
    captions = [(i, texts[0]) for i, texts in REFERENCES.items()]
    scores = score(captions, groups=file, scorers=["ROUGE-L"])
    assert set(scores) == {"caption/ROUGE-L", "caption/in/ROUGE-L"}
    assert "1 of 3 images have no group" in logged.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "groups need JSON"),
        ("{", "not a JSON file"),
        ('{"images": [{"domain": "in"}]}', "'id'"),
        ('{"images": [{"id": 1}, {"id": 2}]}', "none of its 2 images has 'domain'"),
    ],
)
def test_a_file_without_groups_is_rejected(tmp_path, content, message):
    file = tmp_path / "groups.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        METRICS.build({"type": "pcm_plugin.CaptionMetric", "groups": file})
    assert str(file) in str(caught.value)


def test_cider_of_a_single_image_is_undefined(tmp_path, logged):
    metric = METRICS.build(
        {"type": "pcm_plugin.CaptionMetric", "per_image": tmp_path / "each.json"}
    )
    sample = {"image_id": 7, "pred_caption": "A dog runs on the grass.", "gt_caption": "a dog"}
    metric.process(None, [sample])
    scores = metric.evaluate(1)
    assert all(math.isnan(scores[f"caption/{name}"]) for name in ("CIDEr", "CIDEr-D"))
    assert scores["caption/BLEU-1"] > 0
    assert "CIDEr is undefined for a single image" in metric.remarks[0]
    assert metric.remarks[0] in logged.text
    (row,) = json.loads((tmp_path / "each.json").read_text())
    assert (row["CIDEr"], row["CIDEr-D"]) == (None, None)
    # Words of all images have weight 0, so no caption could score above 0.
    same = {1: ["a dog runs"], 2: ["a dog runs"]}
    scores = score([(1, "a dog runs"), (2, "a dog runs")], same)
    assert math.isnan(scores["caption/CIDEr"])
    scores = score([(1, "a dog runs"), (2, "a cat runs")], {1: ["a dog runs"], 2: ["a cat runs"]})
    assert scores["caption/CIDEr"] > 0


def test_cider_of_a_group_of_one_is_undefined(tmp_path, logged):
    file = write_nocaps(tmp_path / "nocaps.json", REFERENCES, {7: "in", 8: "in", 9: "out"})
    scores = score([(i, texts[0]) for i, texts in REFERENCES.items()], groups=file)
    assert math.isnan(scores["caption/out/CIDEr"])
    assert not math.isnan(scores["caption/in/CIDEr"])
    assert not math.isnan(scores["caption/CIDEr"])
    assert "group out: CIDEr is undefined for a single image" in logged.text


def test_one_scorer_need_not_be_a_list():
    captions = [(i, texts[0]) for i, texts in REFERENCES.items()]
    assert score(captions, scorers="ROUGE-L") == score(captions, scorers=["ROUGE-L"])
    for wrong in ("Cider", ["BLEU", "Cider"], []):
        with pytest.raises(ValueError, match=r"`scorers` must be a list of 'BLEU', .* got "):
            METRICS.build({"type": "pcm_plugin.CaptionMetric", "scorers": wrong})


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ((7, 7, 9), "two lists of references"),
        ((7, "7", 9), "two lists of references"),
        ((7, 7.0, 9), "two lists of references"),
        ((7, None, 9), "must be a number or a text"),
        ((7, math.nan, 9), "must be a number or a text"),
    ],
)
def test_images_that_share_an_id_are_rejected(ids, message):
    metric = METRICS.build({"type": "pcm_plugin.CaptionMetric", "scorers": ["BLEU"]})
    samples = [
        {"image_id": i, "pred_caption": "a", "gt_caption": texts}
        for i, texts in zip(ids, REFERENCES.values(), strict=True)
    ]

    def evaluate():
        metric.process(None, samples)
        metric.evaluate(3)

    with pytest.raises(ValueError, match=message):
        evaluate()


def test_images_that_share_an_id_are_counted(tmp_path):
    # With a file of references, samples have no references that could differ.
    path = write_references(tmp_path / "references.json", REFERENCES)
    metric = METRICS.build({"type": "pcm_plugin.CaptionMetric", "ann_file": path})
    metric.process(None, [{"image_id": i, "pred_caption": "a"} for i in (7, 8, 9, 9)])
    with pytest.raises(ValueError, match="4 images have 3 different image_id"):
        metric.evaluate(4)


def test_references_without_a_caption_are_rejected_unless_partial(tmp_path, logged):
    path = write_references(tmp_path / "references.json", REFERENCES)
    captions = [(i, REFERENCES[i][0]) for i in (7, 8)]
    out = tmp_path / "captions.json"
    with pytest.raises(ValueError, match=r"1 images of .* have no caption: '9'; set partial=True"):
        score(captions, ann_file=path, outfile=out)
    # The captions are still written.
    assert [row["image_id"] for row in json.loads(out.read_text())] == [7, 8]
    scores = score(captions, ann_file=path, partial=True)
    assert scores == score(captions, {i: REFERENCES[i] for i in (7, 8)})
    assert "1 images of" in logged.text


def test_no_image_with_a_reference_is_an_error(tmp_path):
    path = write_references(tmp_path / "references.json", REFERENCES)
    with pytest.raises(ValueError, match="no image has a reference: '1', '2'"):
        score([(1, "a"), (2, "b")], {1: [], 2: []})
    with pytest.raises(ValueError, match=r"no image has a reference in .*: '1'; ids there are '7'"):
        score([(1, "a")], {1: ["a"]}, ann_file=path)


def test_references_may_have_any_caption_format(tmp_path):
    path = tmp_path / "references.csv"
    rows = [f'{i}.jpg,"{text}"' for i, texts in REFERENCES.items() for text in texts]
    path.write_text("\n".join(["image,text", *rows, f"7.jpg,{'long ' * 300}"]), "utf-8-sig")
    captions = [(i, texts[0]) for i, texts in REFERENCES.items()]
    references = {"path": path, "column": "text", "skip_invalid": True}
    assert score(captions, ann_file=references) == score(captions)
    for wrong, message in (
        ({"skip_invalid": False}, "more than 1,000"),
        ({"colum": "text"}, "must be a path, or a dict with 'path' and some of"),
    ):
        with pytest.raises(ValueError, match=message):
            score(captions, ann_file=references | wrong)
    with pytest.raises(ValueError, match="more than 1,000"):
        score(captions, scorers=["diversity"], train_captions=references | {"skip_invalid": False})


def test_diversity(tmp_path):
    known = tmp_path / "train.txt"
    known.write_text("The dog runs!\na cat\n")
    captions = [(7, "the dog runs"), (8, "a red car"), (9, "a cow and a sheep")]
    scores = score(captions, scorers=["diversity"], train_captions=known)
    assert scores == {
        "caption/distinct-captions": 3,
        "caption/distinct-words": 9,
        "caption/length": pytest.approx(11 / 3),
        "caption/novel": pytest.approx(200 / 3),
    }
    assert "caption/novel" not in score(captions, scorers=["diversity"])
    repeated = [(7, "the dog runs"), (8, "The dog runs."), (9, "the dog")]
    scores = score(repeated, scorers=["diversity"])
    assert scores["caption/distinct-captions"] == 2


def test_clip_score_follows_the_paper(tmp_path):
    name = build_clip(tmp_path / "clip")
    clip = {"type": "pcm_plugin.OpenCLIPBackbone", "model_name": name}
    backbone = MODELS.build(clip).eval()
    pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    captions = ["a dog runs", "two red cars", "a man"]

    def embed(texts):
        return backbone.encode_text([f"A photo depicts {text}" for text in texts])

    seen, said = backbone(pixels)[1], embed(captions)
    expected = 2.5 * (seen * said).sum(1).clamp(min=0)
    best = torch.stack(
        [(embed(texts) @ said[i]).max().clamp(min=0) for i, texts in enumerate(REFERENCES.values())]
    )
    both = 2 * expected * best / (expected + best)
    samples = [
        {"image_id": i, "pred_caption": c, "gt_caption": texts}
        for (i, texts), c in zip(REFERENCES.items(), captions, strict=True)
    ]
    for batch in ({"images": pixels}, {"global_feats": 3 * seen}):
        settings = {"type": "pcm_plugin.CaptionMetric", "scorers": ["CLIPScore"], "clip": clip}
        metric = METRICS.build(settings)
        metric.process(batch, samples)
        scores = metric.evaluate(3)
        assert scores["caption/CLIPScore"] == pytest.approx(100 * float(expected.mean()), rel=1e-4)
        assert scores["caption/RefCLIPScore"] == pytest.approx(100 * float(both.mean()), rel=1e-4)
    with pytest.raises(ValueError, match="global_feats or images"):
        metric.process({}, samples)


def test_a_clip_of_another_width_is_reported(tmp_path, logged):
    clip = {"type": "pcm_plugin.OpenCLIPBackbone", "model_name": build_clip(tmp_path / "clip")}
    metric = METRICS.build(
        {"type": "pcm_plugin.CaptionMetric", "scorers": ["CLIPScore"], "clip": clip}
    )
    samples = [{"image_id": 1, "pred_caption": "a dog", "gt_caption": "a dog"}]
    metric.process({"global_feats": torch.ones(1, 5)}, samples)
    assert all(map(math.isnan, metric.evaluate(1).values()))
    assert "use the CLIP that computed the features" in logged.text


def test_dataset_to_scores(tmp_path):
    build_store(tmp_path / "store", list(REFERENCES.values()))
    dataset = DATASETS.build(
        {"type": "pcm_plugin.SynthCaptionDataset", "store": tmp_path / "store", "test_mode": True}
    )
    evaluator = Evaluator({"type": "pcm_plugin.CaptionMetric"})
    for batch in DataLoader(dataset, 2, collate_fn=default_collate):
        for sample in batch["data_samples"]:
            sample.pred_caption = sample.gt_caption[1]
        evaluator.process(data_samples=batch["data_samples"], data_batch=batch)
    scores = evaluator.evaluate(len(dataset))
    assert scores["caption/BLEU-4"] == pytest.approx(100, abs=1e-3)


@pytest.mark.parametrize(
    ("language", "texts"),
    [
        ("en", ["a man&#39;s car", "a red car"]),
        ("zh", ["一只狗在公园里", "公园里有３只&amp;狗<br>"]),
        ("ja", ["ﾋﾞｰﾁに犬がいる", "犬が走る"]),
    ],
)
def test_each_text_is_cleaned_once(monkeypatch, language, texts):
    """Texts that a subword vocabulary decoded, and those of references, are cleaned alike."""
    cleaned = []

    def clean(text):
        cleaned.append(text)
        return clean_text(text)

    for module in ("evaluation.scoring", "formats.languages"):
        monkeypatch.setattr(f"pcm_plugin.{module}.clean_text", clean)
    vocabulary = SubwordVocabulary.build(texts * 5, size=300)
    decoded = [vocabulary.decode(vocabulary.to_ids(text)) for text in texts]
    references = {i: [text, texts[0]] for i, text in enumerate(texts)}
    scores = score(list(enumerate(decoded)), references, language=language)
    assert scores["caption/BLEU-1"] == pytest.approx(100)
    assert sorted(cleaned) == sorted([*decoded, *texts, texts[0], texts[0]])
