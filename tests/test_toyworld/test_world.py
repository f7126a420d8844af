"""Tests of the toy world: contents, disjoint splits, and pictures that show their scenes."""

import json
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from pcm_plugin.formats.coco import read_coco_images
from pcm_plugin.toyworld import drawings
from pcm_plugin.toyworld.captions import annotate
from pcm_plugin.toyworld.render import SIZE, render
from pcm_plugin.toyworld.scene import (
    COUNTRY,
    DOMAINS,
    OUTDOORS,
    PLACES,
    SPLITS,
    TOWN,
    WEB,
    Scene,
    Thing,
    scenes,
)
from pcm_plugin.toyworld.things import KINDS, rgb
from pcm_plugin.toyworld.world import build_world, unseen_scenes


def test_the_world_has_the_documented_size():
    assert len(KINDS) >= 30
    assert len(PLACES) >= 6
    assert all(hasattr(drawings, kind) for kind in KINDS)
    words = Counter()
    for domain in (TOWN, COUNTRY, WEB):
        for i, scene in enumerate(scenes(domain, "train", 600, 0)):
            for caption in annotate(scene, domain.style, i):
                words.update(caption.replace(",", "").split())
    assert len(words) >= 200


@pytest.mark.parametrize("domain", ["town", "country"])
def test_colors_and_sizes_are_mentioned_as_often_as_in_flickr8k(domain):
    # Flickr8k has 0.50 colors per caption and a size in 11.5 % of the captions.
    colors = {color for kind in KINDS.values() for color in kind.colors}
    sizes = {"small", "little", "tiny", "big", "large", "huge"}
    drawn = enumerate(scenes(DOMAINS[domain], "train", 400, 0))
    captions = [c.split() for i, s in drawn for c in annotate(s, DOMAINS[domain].style, i)]
    assert 0.4 < np.mean([sum(word in colors for word in words) for words in captions]) < 0.65
    assert 0.08 < np.mean([bool(sizes & set(words)) for words in captions]) < 0.16


def test_every_scene_has_five_different_captions():
    for i, scene in enumerate(scenes(TOWN, "test", 200, 0)):
        captions = annotate(scene, "plain", i)
        assert len(set(captions)) == 5
        assert captions == annotate(scene, "plain", i)


def test_captions_are_correct_about_the_first_thing():
    scene = Scene("beach", (Thing("boat", "red"),))
    for i in range(50):
        for caption in annotate(scene, "rich", i):
            words = set(caption.split())
            assert words & {"boat", "sailboat"}
            assert not words & (set(KINDS) - {"boat"})
            assert not words & {"blue", "green", "yellow", "orange", "purple", "pink"}


@pytest.mark.parametrize("domain", list(DOMAINS))
def test_splits_share_no_content_whatever_the_seed(domain):
    content = {
        split: {s.content for seed in (0, 1) for s in scenes(DOMAINS[domain], split, 300, seed)}
        for split in SPLITS
    }
    for a, b in combinations(SPLITS, 2):
        assert not content[a] & content[b]


def test_the_web_has_no_content_of_test_splits():
    web = {s.content for s in scenes(WEB, "train", 3000, 0)}
    assert not web & {s.content for s in unseen_scenes(400)}


def test_domains_differ():
    seen = {d.name: Counter(s.place for s in scenes(d, "train", 400, 0)) for d in (TOWN, COUNTRY)}
    assert set(seen["town"]) & set(seen["country"]) == {"park"}
    words = {
        d.name: np.mean(
            [
                len(annotate(s, d.style, i, 1)[0].split())
                for i, s in enumerate(scenes(d, "train", 400, 0))
            ]
        )
        for d in (TOWN, COUNTRY)
    }
    assert words["country"] > words["town"] + 1


def test_an_unknown_split_is_rejected():
    with pytest.raises(ValueError, match="`split` must be one of train, val, test, got 'dev'"):
        next(scenes(TOWN, "dev", 1, 0))


def test_the_seed_determines_the_picture():
    scene = Scene("street", (Thing("car", "red"), Thing("dog", "brown")), "left of")
    a, b, c = (np.asarray(render(scene, seed).image, float) for seed in (1, 1, 2))
    assert a.shape == (SIZE, SIZE, 3)
    assert (a == b).all()
    assert np.abs(a - c).mean() > 5


def test_masks_cover_the_things():
    scene = Scene("studio", (Thing("ball", "red", "large"),))
    red = np.array(rgb("red", KINDS["ball"]))
    for seed in range(5):
        picture = render(scene, seed)
        pixels, mask = np.asarray(picture.image, float), picture.masks[0]
        assert 0.02 < mask.mean() < 0.9
        inside = np.abs(pixels[mask] - red).sum(1).mean()
        assert inside < np.abs(pixels[~mask] - red).sum(1).mean() + 60
        assert (pixels[mask][:, 0] - pixels[mask][:, 1]).mean() > 40


def test_a_thing_covers_a_few_patches_of_49():
    # Basis of num_pairs in configs/pcm_toy.py.
    shares = [
        render(scene, i).masks.mean((1, 2)) * 49
        for i, scene in enumerate(scenes(TOWN, "train", 200, 0))
    ]
    assert 2.5 < np.concatenate(shares).mean() < 3.5
    assert 3.5 < np.mean([share.max() for share in shares]) < 4.5


def _seen(relation, seed):
    """Return (top, bottom, left, right) of two things, as shares of the side of the picture."""
    first = {"above": "kite", "on": "cat", "under": "cat"}.get(relation, "ball")
    second = "table" if relation in ("on", "under") else "car"
    colors = {"kite": "red", "cat": "black", "ball": "red", "table": "brown", "car": "blue"}
    things = (Thing(first, colors[first]), Thing(second, colors[second]))
    picture = render(Scene("park", things, relation), seed)
    boxes = []
    for mask in picture.masks:
        rows, columns = np.nonzero(mask)
        boxes.append(np.array([rows.min(), rows.max(), columns.min(), columns.max()]) / SIZE)
    return boxes


def _middle(box):
    return (box[0] + box[1]) / 2, (box[2] + box[3]) / 2


RELATIONS = {
    "left of": lambda a, b: _middle(a)[1] < _middle(b)[1],
    "right of": lambda a, b: _middle(a)[1] > _middle(b)[1],
    "above": lambda a, b: a[1] < _middle(b)[0] and abs(_middle(a)[1] - _middle(b)[1]) < 0.2,
    "on": lambda a, b: _middle(a)[0] < _middle(b)[0] and b[2] < _middle(a)[1] < b[3],
    "under": lambda a, b: _middle(a)[0] > _middle(b)[0] and b[2] < _middle(a)[1] < b[3],
    # Things higher in the picture are farther away.
    "behind": lambda a, b: a[1] < b[1],
    "in front of": lambda a, b: a[1] > b[1],
    "next to": lambda a, b: max(a[2], b[2]) - min(a[3], b[3]) < 0.15 and abs(a[1] - b[1]) < 0.25,
}


@pytest.mark.parametrize("relation", RELATIONS)
def test_pictures_show_the_relation(relation):
    assert all(RELATIONS[relation](*_seen(relation, seed)) for seed in range(8))


def test_light_changes_the_picture():
    bright, dark = (
        np.asarray(render(Scene(OUTDOORS[0], (Thing("dog", "brown"),), light=light), 0).image)
        for light in ("sun", "dark")
    )
    assert bright.mean() > dark.mean() + 30


def test_build_world_writes_the_files_of_a_user(tmp_path):
    sizes = {"train": 6, "val": 3, "test": 4}
    build_world(tmp_path, "town", sizes, workers=1)
    for split, count in sizes.items():
        images = read_coco_images(tmp_path / f"captions_{split}.json")
        assert len(images) == count
        assert {len(i.captions) for i in images} == {1 if split == "train" else 5}
        assert all((tmp_path / "images" / i.file_name).exists() for i in images)
        truth = [json.loads(r) for r in (tmp_path / f"scenes_{split}.jsonl").open()]
        assert [t["image_id"] for t in truth] == [i.image_id for i in images]
    before = (tmp_path / "captions_test.json").stat().st_mtime_ns
    build_world(tmp_path, "town", sizes, workers=1)
    assert (tmp_path / "captions_test.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"must contain a world with .*: delete the folder"):
        build_world(tmp_path, "town", sizes, seed=1, workers=1)
