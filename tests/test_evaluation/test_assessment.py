import pytest

from pcm_plugin.evaluation.assessment import Measurements, assess

GOOD = {
    "margin": 30.0,
    "synthetic_margin": 30.0,
    "training_margin": 32.0,
    "copied": 10.0,
    "coverage": 70.0,
    "gap": 55.0,
    "has_photos": True,
    "is_refined": True,
    "is_reranked": True,
}


@pytest.mark.parametrize(
    ("margin", "quality"),
    [
        (30, "It describes your photos about as well as its synthetic training images"),
        (24, "It describes your photos noticeably worse than its synthetic training images"),
        (6, "It probably describes your photos badly compared with its synthetic images"),
        (-3, "It probably describes your photos badly compared with its synthetic images"),
    ],
)
def test_the_margin_on_photos_decides_how_good_it_is(margin, quality):
    sentence = assess(Measurements(**GOOD | {"margin": margin}))
    assert sentence.startswith(quality)
    assert f"is {100 * margin / 30:.0f} % of that on them" in sentence
    assert sentence.endswith(".")
    assert sentence.count(".") == 1


@pytest.mark.parametrize(
    ("values", "improvement"),
    [
        ({}, "more captions"),
        ({"coverage": 40.0}, "more detailed captions, since they name 40 % of the concepts"),
        ({"is_reranked": False}, "re-ranking by CLIP"),
        ({"is_refined": False}, "refined pairs (pcm refine)"),
        ({"copied": 60.0}, "more different captions, since 60 % are copied"),
        ({"gap": 90.0}, "captions that are assigned to your photos (--photos of pcm make-dataset)"),
        ({"gap": 90.0, "uses_photos": True}, "more captions"),
        ({"missing_concepts": ["tent", "boat"]}, "few captions name (tent, boat)"),
        ({"synthetic_margin": 16.0}, "a longer training"),
    ],
)
def test_a_measured_value_decides_what_to_improve(values, improvement):
    assert improvement in assess(Measurements(**GOOD | values))


def test_the_earlier_rule_applies_if_several_do():
    values = {"synthetic_margin": 9.0, "missing_concepts": ["tent"], "gap": 99.0, "copied": 99.0}
    order = [
        "a longer training",
        "few captions name",
        "--photos of pcm make-dataset",
        "more different",
    ]
    for name, expected in zip(list(values), order, strict=True):
        sentence = assess(Measurements(**GOOD | {"is_refined": False} | values))
        assert expected in sentence
        del values[name]


def test_unknown_values_are_not_mentioned():
    nothing = assess(Measurements())
    assert nothing.startswith("How good the captioner is on real images is unknown; pass a folder")
    cider = assess(Measurements(cider=93.5, cider_on="test"))
    assert cider.startswith("Its CIDEr on test is 93.5; pass a folder of your photos with --photos")
    text_only = Measurements(margin=12.0, copied=0.0, has_photos=True, has_images=False)
    assert assess(text_only).startswith("Its captions of your photos score 12.0 CLIPScore points")
    assert "nan" not in assess(text_only)
