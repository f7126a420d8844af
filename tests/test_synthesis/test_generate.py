import hashlib
import io
import json
import socket
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pcm_plugin.commands.generate import main
from pcm_plugin.formats.image_shards import count_captions
from pcm_plugin.synthesis.extract.open_source import open_source
from pcm_plugin.synthesis.generate.generate_images import generate_images
from pcm_plugin.synthesis.generate.settings import GenerateSettings
from pcm_plugin.synthesis.generate.text2image import GenerationRequest, ImageGenerator, image_seed
from tests.builders import build_pipeline

CAPTIONS = ["a red dog", "a blue car", "the cat on a house", "a tree", "the green car"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = build_pipeline(tmp_path_factory.mktemp("models") / "tiny")
    return GenerateSettings(str(folder), steps=2, guidance=3.0, shard_size=2, format="png")


@pytest.fixture
def captions(tmp_path):
    path = tmp_path / "captions.txt"
    path.write_text("\n".join(CAPTIONS))
    return path


def contents(folder):
    return {p.name: p.read_bytes() for p in Path(folder).iterdir() if p.name[0] != "."}


def samples(folder):
    found = {}
    for path in sorted(Path(folder).glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                found[member.name] = tar.extractfile(member).read()
    return found


def test_shards_hold_an_image_and_its_facts_for_each_caption(tmp_path, captions, settings):
    folder = generate_images(captions, settings, tmp_path / "out")
    found = samples(tmp_path / "out")
    assert [f"{i:08d}.{kind}" for i in range(5) for kind in ("png", "json")] == list(found)
    images = [Image.open(io.BytesIO(found[f"{i:08d}.png"])) for i in range(5)]
    assert all(image.size == (16, 16) and image.mode == "RGB" for image in images)
    assert len({image.tobytes() for image in images}) == 5
    assert json.loads(found["00000003.json"]) == {
        "id": "4",
        "caption_id": "4",
        "image_id": "4",
        "caption": "a tree",
        "seed": image_seed(0, "4"),
    }
    assert [record["count"] for record in folder.shards.values()] == [2, 2, 1]
    assert folder.complete
    for name, record in folder.shards.items():
        data = (folder.path / f"{name}.tar").read_bytes()
        facts = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        assert record["files"] == {f"{name}.tar": facts}


def test_an_interrupted_run_ends_with_the_same_bytes(tmp_path, captions, settings, monkeypatch):
    generate_images(captions, settings, tmp_path / "whole")
    drawn = []

    def dies(generator, batch):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(batch)
        return generate(generator, batch)

    generate = ImageGenerator.generate
    with monkeypatch.context() as patch:
        patch.setattr(ImageGenerator, "generate", dies)
        with pytest.raises(KeyboardInterrupt):
            generate_images(captions, settings, tmp_path / "killed")
    assert set(contents(tmp_path / "killed")) == {
        "manifest.json",
        "shard-00000.tar",
        "shard-00001.tar",
    }
    left = tmp_path / "killed" / f".shard-00002.tar.{socket.gethostname()}.part"
    left.write_text("left by a process that was killed")
    generate_images(captions, settings, tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert not left.exists()


def test_a_second_run_loads_no_pipeline(tmp_path, captions, settings, monkeypatch):
    generate_images(captions, settings, tmp_path / "out")
    monkeypatch.setattr("pcm_plugin.synthesis.generate.text2image.load_pipeline", None)
    generate_images(captions, settings, tmp_path / "out")
    # A folder's place is no setting, its content is.
    moved = Path(settings.pipeline).rename(Path(settings.pipeline).parent.parent / "tiny")
    generate_images(captions, replace(settings, pipeline=str(moved)), tmp_path / "out")
    moved.rename(settings.pipeline)


def test_an_image_depends_on_its_captions_id_and_the_seed_alone(tmp_path, captions, settings):
    generate_images(captions, settings, tmp_path / "all", batch_size=1)
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"caption": CAPTIONS[3], "id": 4}))
    generate_images(other, settings, tmp_path / "one")
    generate_images(other, replace(settings, seed=1), tmp_path / "seeded")
    images = [samples(tmp_path / "all")["00000003.png"]]
    images += [samples(tmp_path / name)["00000000.png"] for name in ("one", "seeded")]
    assert images[0] == images[1] != images[2]


def test_equal_captions_have_different_images(tmp_path, captions, settings):
    captions.write_text("a dog\na dog")
    generate_images(captions, settings, tmp_path / "out")
    found = samples(tmp_path / "out")
    assert found["00000000.png"] != found["00000001.png"]


def test_size_scheduler_and_format(tmp_path, captions, settings):
    changed = replace(settings, size=32, scheduler="EulerAncestralDiscreteScheduler", format="jpg")
    generate_images(captions, changed, tmp_path / "out", limit=1)
    plain = replace(changed, scheduler=None)
    generate_images(captions, plain, tmp_path / "plain", limit=1)
    (name, data), _ = samples(tmp_path / "out").items()
    assert name == "00000000.jpg"
    assert Image.open(io.BytesIO(data)).size == (32, 32)
    assert data != samples(tmp_path / "plain")[name]
    with pytest.raises(ValueError, match=r"scheduler must be one of DDIM.* got 'UNet2DModel'"):
        generate_images(captions, replace(plain, scheduler="UNet2DModel"), tmp_path / "bad")


def test_webp_and_quality(tmp_path, captions, settings):
    sizes = {}
    for format, quality in (("webp", 10), ("webp", 95), ("jpg", 10), ("jpg", 95)):
        wanted = replace(settings, format=format, quality=quality, size=64)
        generate_images(captions, wanted, tmp_path / f"{format}{quality}", limit=1)
        data = samples(tmp_path / f"{format}{quality}")[f"00000000.{format}"]
        assert Image.open(io.BytesIO(data)).format == {"webp": "WEBP", "jpg": "JPEG"}[format]
        sizes[format, quality] = len(data)
    assert sizes["webp", 10] < sizes["webp", 95]
    assert sizes["jpg", 10] < sizes["jpg", 95]


def test_the_safety_checker_of_a_pipeline(tmp_path, settings):
    """A checker that objects to everything; its black images are not what is recorded."""
    checked = build_pipeline(tmp_path / "checked", kind="checked")
    generator = ImageGenerator(replace(settings, pipeline=str(checked)), "cpu")
    (result,) = generator.generate([GenerationRequest("1", "a dog")])
    assert result.image is None
    assert result.problems == ["safety checker", "safety checker"]


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("xl", {"steps": 2, "guidance": 5.0, "negative_prompt": "a cat"}),
        ("turbo", {"steps": 1, "guidance": 0.0}),
        ("lcm", {"steps": 2, "guidance": 8.0}),
    ],
)
def test_other_kinds_of_pipeline(tmp_path, captions, settings, kind, wanted):
    pipeline = build_pipeline(tmp_path / kind, kind=kind)
    settings = replace(settings, pipeline=str(pipeline), **wanted)
    generate_images(captions, settings, tmp_path / "out", batch_size=2)
    generate_images(captions, replace(settings, steps=3), tmp_path / "steps", batch_size=2)
    found, others = samples(tmp_path / "out"), samples(tmp_path / "steps")
    images = [found[f"{i:08d}.png"] for i in range(5)]
    assert len(set(images)) == 5
    assert all(found[name] != others[name] for name in found if name.endswith("png"))


def test_a_setting_that_a_pipeline_would_ignore_is_refused(tmp_path, captions, settings):
    pipeline = build_pipeline(tmp_path / "lcm", kind="lcm")
    settings = replace(settings, pipeline=str(pipeline), negative_prompt="a cat")
    with pytest.raises(ValueError, match=r"has no argument negative_prompt: leave .* got 'a cat'"):
        generate_images(captions, settings, tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("*.tar"))
    generate_images(captions, replace(settings, negative_prompt=None), tmp_path / "out", limit=1)


def test_prompts_and_several_images_per_caption(tmp_path, captions, settings):
    several = replace(settings, images_per_caption=2)
    folder = generate_images(captions, several, tmp_path / "several", limit=3)
    found = samples(tmp_path / "several")
    names = [f"{i:08d}-{j}" for i in range(3) for j in range(2)]
    assert [f"{name}.{kind}" for name in names for kind in ("png", "json")] == list(found)
    assert len({found[f"{name}.png"] for name in names}) == 6
    assert json.loads(found["00000001-1.json"])["id"] == "2-1"
    assert [record["count"] for record in folder.shards.values()] == [4, 2]
    generate_images(captions, settings, tmp_path / "one", limit=3)
    first = samples(tmp_path / "one")
    assert found["00000002-0.png"] == first["00000002.png"]
    for change in ({"prompt": "a photo of {}"}, {"negative_prompt": "the house"}):
        generate_images(
            captions, replace(settings, **change), tmp_path / next(iter(change)), limit=3
        )
        other = samples(tmp_path / next(iter(change)))
        assert other["00000000.png"] != first["00000000.png"]
        assert other["00000000.json"] == first["00000000.json"]


def broken(monkeypatch, *problems):
    """Break the images of "a blue car": the first try by problems[0], the second by problems[1]."""
    run_pipeline = ImageGenerator._run_pipeline

    def breaks(generator, requests, attempt):
        results = run_pipeline(generator, requests, attempt)
        for i, (request, (pixels, seed, _)) in enumerate(zip(requests, results, strict=True)):
            if request.text == "a blue car" and attempt < len(problems):
                value = {"black": 0.0, "not finite": float("nan")}.get(problems[attempt], 0.5)
                pixels = np.full_like(pixels, value)
                results[i] = (pixels, seed, problems[attempt] == "safety checker")
        return results

    monkeypatch.setattr(ImageGenerator, "_run_pipeline", breaks)


@pytest.mark.parametrize("problem", ["black", "not finite", "safety checker"])
def test_a_rejected_image_is_generated_again(tmp_path, captions, settings, monkeypatch, problem):
    generate_images(captions, settings, tmp_path / "good")
    broken(monkeypatch, problem)
    folder = generate_images(captions, settings, tmp_path / "out")
    good, found = samples(tmp_path / "good"), samples(tmp_path / "out")
    assert list(found) == list(good)
    assert found["00000001.png"] != good["00000001.png"]
    facts = json.loads(found["00000001.json"])
    assert facts["problems"] == [problem]
    assert facts["seed"] == image_seed(0, "2", attempt=1) != image_seed(0, "2")
    assert [record["retried"] for record in folder.shards.values()] == [1, 0, 0]
    for name in set(good) - {"00000001.png", "00000001.json"}:
        assert found[name] == good[name]


def test_an_image_that_fails_twice_is_left_out_and_listed(
    tmp_path, captions, settings, monkeypatch
):
    broken(monkeypatch, "black", "safety checker")
    folder = generate_images(captions, settings, tmp_path / "out")
    record = folder.shards["shard-00000"]
    assert record["count"] == 1
    assert record["skipped"] == {"00000001": ["black", "safety checker"]}
    assert "00000001.png" not in samples(tmp_path / "out")
    # A small last shard without a single usable image does not stop the run.
    captions.write_text("a red dog\na tree\na blue car")
    folder = generate_images(captions, settings, tmp_path / "last")
    assert [record["count"] for record in folder.shards.values()] == [2, 0]
    captions.write_text("a blue car\na blue car")
    with pytest.raises(ValueError, match="no image of shard-00000 is usable; 00000000: black"):
        generate_images(captions, settings, tmp_path / "none")


@pytest.mark.parametrize("several", [1, 2])
def test_captions_that_share_an_image_that_was_left_out_are_counted(
    tmp_path, captions, settings, monkeypatch, several
):
    broken(monkeypatch, "black", "black")
    texts = ["a red dog", "a blue car", "a red dog", "a blue car", "a tree", "a blue car"]
    captions.write_text("\n".join(texts))
    changed = replace(settings, unique=True, images_per_caption=several)
    assert count_captions(generate_images(captions, changed, tmp_path / "out")) == (3, 3)
    changed = replace(changed, unique=False)
    assert count_captions(generate_images(captions, changed, tmp_path / "each")) == (3, 3)


def test_more_captions_extend_a_folder_and_others_are_refused(tmp_path, captions, settings):
    generate_images(captions, settings, tmp_path / "grown", limit=3)
    generate_images(captions, settings, tmp_path / "grown")
    generate_images(captions, settings, tmp_path / "whole")
    assert contents(tmp_path / "grown") == contents(tmp_path / "whole")
    with pytest.raises(ValueError, match="at most the 1 planned shards, got"):
        generate_images(captions, settings, tmp_path / "whole", limit=settings.shard_size)
    with pytest.raises(ValueError, match=r"settings \(shard_size: 2 there, 3 now\)"):
        generate_images(captions, replace(settings, shard_size=3), tmp_path / "whole")
    generate_images(captions, settings, tmp_path / "four", limit=4)
    with pytest.raises(ValueError, match=r"\(shard-00001 from 2, now it would be from 1 that"):
        generate_images(captions, settings, tmp_path / "four", limit=3)
    captions.write_text("\n".join(reversed(CAPTIONS)))
    with pytest.raises(ValueError, match=r"other samples \(shard-00000 from 2, now .* from 2 that"):
        generate_images(captions, settings, tmp_path / "whole")


def test_captions_that_change_during_generation_are_detected(
    tmp_path, captions, settings, monkeypatch
):
    generate = ImageGenerator.generate

    def edits(generator, batch):
        captions.write_text("\n".join([*CAPTIONS[:3], "another", CAPTIONS[4]]))
        return generate(generator, batch)

    monkeypatch.setattr(ImageGenerator, "generate", edits)
    with pytest.raises(
        ValueError, match=r"captions.txt was changed while its images were generated"
    ):
        generate_images(captions, settings, tmp_path / "out")


def test_a_growing_folder_is_unfinished_until_it_is_complete(
    tmp_path, captions, settings, monkeypatch
):
    generate_images(captions, settings, tmp_path / "out", limit=3)

    def dies(generator, batch):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ImageGenerator, "generate", dies)
        with pytest.raises(KeyboardInterrupt):
            generate_images(captions, settings, tmp_path / "out", limit=4)
    with pytest.raises(ValueError, match="has 1 of 2 shards: run the command that made it again"):
        open_source(tmp_path / "out", None, 1)


def test_other_settings_are_refused(tmp_path, captions, settings):
    generate_images(captions, settings, tmp_path / "out", limit=1)
    with pytest.raises(ValueError, match=r"settings \(guidance: 3.0 there, 7.5 now\)"):
        generate_images(captions, replace(settings, guidance=7.5), tmp_path / "out", limit=1)
    weights = next(Path(settings.pipeline).glob("unet/*.safetensors"))
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + b"?")
    with pytest.raises(ValueError, match=r"settings \(pipeline: 'tiny \(sha256"):
        generate_images(captions, settings, tmp_path / "out", limit=1)
    weights.write_bytes(data)


def test_invalid_input_is_refused(tmp_path, captions, settings):
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"no captions in .*empty.txt"):
        generate_images(tmp_path / "empty.txt", settings, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"no model_index.json"):
        generate_images(captions, replace(settings, pipeline=str(tmp_path)), tmp_path / "out")
    for nowhere in (str(tmp_path / "nowhere"), "./nowhere", "a/folder/nowhere"):
        with pytest.raises(
            FileNotFoundError, match=r"no folder .*nowhere: pipeline must be a local"
        ):
            generate_images(captions, replace(settings, pipeline=nowhere), tmp_path / "out")
    for wrong in ({"batch_size": 0}, {"limit": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be at least 1, got"):
            generate_images(captions, settings, tmp_path / "out", **wrong)
    for wrong in ({"format": "gif"}, {"dtype": "int8"}, {"steps": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must"):
            replace(settings, **wrong)


def test_command_line(tmp_path, captions, settings, monkeypatch, capsys):
    command = f"generate {captions} --pipeline {settings.pipeline} --out {tmp_path / 'out'}"
    command += " --steps 2 --guidance 3 --shard-size 2 --format png --device cpu"
    monkeypatch.setattr(sys, "argv", command.split())
    main()
    assert "5 images in 3 shards" in capsys.readouterr().out
    generate_images(captions, settings, tmp_path / "api")
    assert contents(tmp_path / "out") == contents(tmp_path / "api")
