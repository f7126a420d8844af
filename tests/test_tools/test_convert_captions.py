import json

import pytest

from pcm_plugin.formats.captions.caption_file import CaptionFile
from pcm_plugin.formats.captions.record import Caption
from pcm_plugin.formats.coco import read_coco_images
from tests.test_tools.commands import run

KARPATHY = {
    "dataset": "coco",
    "images": [
        {
            "filename": f"{split}.jpg",
            "filepath": "val2014",
            "cocoid": i,
            "split": split,
            "sentences": [{"raw": f"{split} {j}", "sentid": 2 * i + j} for j in range(2)],
        }
        for i, split in enumerate(("train", "val", "test"))
    ],
}


@pytest.fixture
def karpathy(tmp_path):
    path = tmp_path / "dataset_coco.json"
    path.write_text(json.dumps(KARPATHY))
    return path


def convert(tmp_path, *args):
    return run("convert-captions", *args, log=tmp_path / "log")


def test_a_split_becomes_a_coco_captions_file(tmp_path, karpathy):
    result = convert(tmp_path, karpathy, "--split", "val", "--out", tmp_path / "new/val.json")
    assert result.code == 0, result.output
    assert "(Karpathy's JSON): 2 captions, 4 of other splits" in result.output
    assert read_coco_images(tmp_path / "new/val.json") == [
        ("1", "val2014/val.jpg", ["val 0", "val 1"])
    ]


def test_captions_written_as_jsonl_are_read_unchanged(tmp_path, karpathy):
    result = convert(tmp_path, karpathy, "--out", tmp_path / "train.jsonl")
    assert result.code == 0, result.output
    captions = list(CaptionFile(tmp_path / "train.jsonl"))
    assert captions == list(CaptionFile(karpathy))
    assert captions[1] == Caption("1", "0", "train 1", "val2014/train.jpg")


def test_captions_without_files_are_rejected(tmp_path):
    (tmp_path / "captions.txt").write_text("a dog\n")
    result = convert(tmp_path, tmp_path / "captions.txt", "--out", tmp_path / "out.json")
    assert result.code == 1
    assert "image 1 has no file name" in result.output
    result = convert(tmp_path, tmp_path / "captions.txt", "--out", tmp_path / "out.txt")
    assert "--out must end in .json or .jsonl, got" in result.output
    assert sorted(p.name for p in tmp_path.iterdir()) == ["captions.txt", "log"]


def build(tmp_path, *args):
    return run("build-vocabulary", *args, log=tmp_path / "log")


def test_each_option_that_a_message_names_exists(tmp_path):
    files = {
        "encoding": ("一个女孩走进木屋\n两只狗在草地上\n".encode("gbk"), "--encoding gb18030"),
        "format": (b"a red car", "--format text"),
        "column": (b"id,Caption\n1,a dog\n", "--column Caption"),
        "bad": (b"id,caption\n1,a, dog\n2,a cat\n", "--skip-invalid"),
    }
    for name, (content, option) in files.items():
        (tmp_path / name).write_bytes(content)
        result = convert(tmp_path, tmp_path / name, "--out", tmp_path / "out.jsonl")
        assert (result.code, option in result.output) == (1, True), result.output
        args = [tmp_path / name, "--out", tmp_path / "out.jsonl", *option.split()]
        result = convert(tmp_path, *args)
        assert result.code == 0, result.output
        args = [tmp_path / name, "--out", tmp_path / "words.txt", "--min-count", 1]
        assert option in build(tmp_path, *args).output
        assert build(tmp_path, *args, *option.split()).code == 0
    # In that command, --format is the format of the images.
    args = ["--pipeline", "none", "--out", tmp_path / "images"]
    result = run("generate", tmp_path / "format", *args, log=tmp_path / "log")
    assert "--caption-format text" in result.output
    result = run(
        "extract",
        tmp_path,
        "--captions",
        tmp_path / "column",
        "--model",
        "none",
        *args[2:],
        log=tmp_path / "log",
    )
    assert "--column Caption" in result.output


def test_a_file_with_ids_of_images_keeps_each_caption(tmp_path):
    (tmp_path / "captions.csv").write_text("id,caption\n1,a red car\n1,a dog\n2,a cat\n2,a man\n")
    result = convert(tmp_path, tmp_path / "captions.csv", "--out", tmp_path / "out.jsonl")
    assert result.code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [tuple(row.values()) for row in rows] == [
        ("1#1", "1", "a red car"),
        ("1#2", "1", "a dog"),
        ("2#1", "2", "a cat"),
        ("2#2", "2", "a man"),
    ]


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        ("一个女孩走进木屋\n一个女孩走进草地\n", True),
        ("一 个 女孩 走进 木屋\n两 只 狗 在 草地 上\n", False),
        ("犬が二匹、草の上を走っている。\n赤い車\n", True),
        ("犬 が 二 匹 、 草 の 上 を 走って いる 。\n赤い 車\n", False),
        ("สุนัขสองตัวกำลังวิ่งอยู่บนหญ้า\nรถสีแดง\n", True),
        ("สุนัข สอง ตัว กำลัง วิ่ง อยู่ บน หญ้า\nรถ สี แดง\n", False),
        ("ឆ្កែពីរក្បាលកំពុងរត់នៅលើស្មៅ\n", True),
        ("ឆ្កែ\u200bពីរ\u200bក្បាល\u200bកំពុង\u200bរត់\u200bនៅ\u200bលើ\u200bស្មៅ\n", False),
        ("ໝາສອງໂຕກຳລັງແລ່ນຢູ່ເທິງຫຍ້າ\n", True),
        ("ခွေးနှစ်ကောင်မြက်ပေါ်တွင်ပြေးနေသည်\n", True),
        ("개 두 마리가 잔디에서 뛰고 있다\n", False),
        ("a dog\n" * 99 + "一个女孩走进木屋\n", False),
    ],
)
def test_scripts_without_spaces_cause_a_warning(tmp_path, text, warned):
    (tmp_path / "captions.txt").write_text(text)
    args = ["--min-count", 1, "--out", tmp_path / "words.txt"]
    result = build(tmp_path, tmp_path / "captions.txt", *args)
    assert result.code == 0, result.output
    assert ("WARNING" in result.output) == warned
    if warned:
        assert "without spaces between words" in result.output


def test_predictions_become_a_results_file_that_score_reads(tmp_path):
    """`pcm score` names the format that it does not read and the command that converts it."""
    files = {
        "p.csv": "image,caption\n1.jpg,a dog\n2.jpg,a cat\n",
        "p.jsonl": "".join(
            json.dumps({"image_id": i, "caption": text}) + "\n"
            for i, text in ((1, "a dog"), (2, "a cat"))
        ),
    }
    references = tmp_path / "references.csv"
    references.write_text("image,caption\n1.jpg,a dog\n2.jpg,the cat\n")
    for (name, text), form in zip(files.items(), ("table", "JSONL"), strict=True):
        path, out = tmp_path / name, tmp_path / f"{name}.json"
        path.write_text(text)
        result = run("score", path, references, log=tmp_path / "log")
        assert result.code == 1
        assert "must be a COCO results file" in result.output
        assert f", got {form}: convert it" in result.output
        assert f"pcm convert-captions {path} --results" in result.output
        result = convert(tmp_path, path, "--results", "--out", out)
        assert result.code == 0, result.output
        rows = json.loads(out.read_text())
        assert [(row["image_id"], row["caption"]) for row in rows] == [(1, "a dog"), (2, "a cat")]
        result = run("score", out, references, log=tmp_path / "log")
        assert result.code == 0, result.output
        assert "CIDEr" in result.output


def test_results_need_one_caption_per_image(tmp_path, karpathy):
    result = convert(tmp_path, karpathy, "--results", "--out", tmp_path / "out.json")
    assert "each image must have one predicted caption, but image 0 has 2" in result.output
    (tmp_path / "captions.txt").write_text("a dog\na cat\n")
    out = ("--results", "--out", tmp_path / "out.json")
    result = convert(tmp_path, tmp_path / "captions.txt", *out)
    assert "2 of 2 captions have neither" in result.output
    result = convert(tmp_path, karpathy, "--results", "--out", tmp_path / "out.jsonl")
    assert "--out must end in .json with --results" in result.output
    assert not list(tmp_path.glob("out*"))
