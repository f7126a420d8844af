import argparse

import pytest

from pcm_plugin.commands.caption_arguments import LiteralKeyValue


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("--set", nargs="+", action=LiteralKeyValue, default={})
    return parser


def test_settings_are_read_as_python_writes_them_and_add_up(parser):
    given = ["a.steps=30", "a.prompt=a photo, of {}", "b=None", "c=[1, 2]", "d={}", "e={[1]}"]
    found = parser.parse_args(["--set", *given, "--set", "a.steps=40", "f=True"]).set
    assert found == {
        "a.steps": 40,
        "a.prompt": "a photo, of {}",
        "b": None,
        "c": [1, 2],
        "d": "{}",
        "e": "{[1]}",
        "f": True,
    }
    assert parser.parse_args([]).set == {}


def test_what_is_no_setting_is_named(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["--set", "a photo of {}"])
    assert "--set a photo of {}: give KEY=VALUE" in capsys.readouterr().err
