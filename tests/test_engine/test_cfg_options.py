import argparse

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.config import Config

from pcm_plugin.commands.run_config import apply_cfg_options
from pcm_plugin.engine.cfg_options import CfgOptions, format_option, parse_value
from pcm_plugin.errors import UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("my out/captions.json", "my out/captions.json"),
        ("  two  spaces ", "  two  spaces "),
        ("a photo of a {}, drawn", "a photo of a {}, drawn"),
        ("(copy) out/captions.json", "(copy) out/captions.json"),
        ("runs/a,b/captions.json", "runs/a,b/captions.json"),
        ("it's", "it's"),
        ("key=value", "key=value"),
        ("none", "none"),
        ("", ""),
        ("-3", -3),
        ("1e-4", 1e-4),
        ("-0.5", -0.5),
        ("None", None),
        ("true", True),
        ("False", False),
        ("'1'", "1"),
        ('"a, b"', "a, b"),
        ("BLEU,CIDEr", ["BLEU", "CIDEr"]),
        ("0.9, 0.98", [0.9, 0.98]),
        ("[BLEU, CIDEr]", ["BLEU", "CIDEr"]),
        ("[one two, 'three, four']", ["one two", "three, four"]),
        ("[(1, 2), [a, None], it's]", [(1, 2), ["a", None], "it's"]),
        ("(0.9, 0.999)", (0.9, 0.999)),
        ("(1,)", (1,)),
        ("[]", []),
        (
            "{type: Adam, betas: (0, 1), 'a b': x y}",
            {"type": "Adam", "betas": (0, 1), "a b": "x y"},
        ),
    ],
)
def test_values_are_parsed_by_their_form(text, value):
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("text", ["[1, 2", "{a: [1}", "{a b}"])
def test_open_brackets_are_rejected(text):
    with pytest.raises(ValueError, match=r"must be closed|must be a pair"):
        parse_value(text)


LEAVES = st.text(st.characters(codec="utf-8")) | st.integers() | st.booleans() | st.none()
VALUES = st.recursive(
    LEAVES | st.floats(allow_nan=False),
    lambda value: st.lists(value) | st.dictionaries(st.text(), value) | st.tuples(value, value),
    max_leaves=6,
)


# On a busy machine, drawing inputs and each example may take long.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES)
def test_a_formatted_option_is_read_back(value):
    key, _, text = format_option("a.b", value).partition("=")
    assert key == "a.b"
    assert parse_value(text) == value


def parse(*words):
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=CfgOptions)
    return parser.parse_args(["--cfg-options", *words]).cfg_options


def test_pairs_are_split_at_the_first_equals_sign():
    assert parse("a.b=x=y z", "c=", "d=-1") == {"a.b": "x=y z", "c": "", "d": -1}


@pytest.mark.parametrize("word", ["train_cfg.max_epochs", "=1", "a..b=1", "a=[1"])
def test_an_option_that_is_not_a_pair_is_rejected(word, capsys):
    with pytest.raises(SystemExit) as end:
        parse("outfile=my", word)
    assert end.value.code == 2
    assert "--cfg-options" in capsys.readouterr().err


def test_new_settings_are_reported(capsys):
    def apply(**options):
        cfg = Config(
            {
                "root": "data",
                "clip": {"model_name": "x"},
                "train_cfg": {"type": "x", "max_epochs": 2},
            }
        )
        apply_cfg_options(cfg, {key.replace("__", "."): value for key, value in options.items()})
        return cfg

    with pytest.raises(UserError, match="has no `trian_cfg`; did you mean `train_cfg`"):
        apply(trian_cfg__max_epochs=1)
    assert apply(clip__modle_name="y").clip.modle_name == "y"
    assert "did you mean `model_name`?" in capsys.readouterr().err
    apply(root="elsewhere")
    assert "settings that the config derives from `root` do not" in capsys.readouterr().err
    assert apply(load_from="x.pth").load_from == "x.pth"
    assert apply(clip__model_name="y").clip.model_name == "y"
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match=r"--cfg-options clip.model_name.name: "):
        apply(clip__model_name__name=1)
