"""Every command that a page or a config shows is one that its tool takes."""

import argparse
import importlib
import re
import shlex
import sys
from functools import reduce
from pathlib import Path

import pytest
from mmengine.config import Config

from pcm_plugin.commands.config_files import list_configs
from pcm_plugin.engine.inputs import maker

PAGES = [Path("README.md"), *sorted(Path("docs").glob("*.md"))]
CONFIGS = [*list_configs().values()]


def commands_of_page(path):
    text = path.read_text().replace("\\\n", " ")
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in fenced for line in block.splitlines()]
    return [*lines, *re.findall(r"`([^`\n]+)`", text)]


def commands_of_config(path):
    cfg = Config.fromfile(path)
    for entry in cfg.get("required_files", []):
        # What makes a file depends on where the config has it.
        path = reduce(lambda part, key: (part or {}).get(key), entry["key"].split("."), cfg)
        yield from maker(cfg, entry, path or "PATH").split("&&")


def words_of(line):
    """Tool and arguments, None if the line runs no tool of ours or only says how to write one."""
    launcher = r"(?:(?:\.venv/bin/)?python|torchrun --nproc_per_node \d+)"
    match = re.match(rf"\s*(?:\w+=\S+ )*{launcher} (tools/\S+\.py)(.*)", line)
    if not match or "[" in line or "..." in line:
        return None
    lexer = shlex.shlex(match[2], posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    end = next((i for i, word in enumerate(words) if word in (";", "&&", "|", ">")), len(words))
    return match[1], words[:end]


def shown(paths, commands_of):
    found = [(path, words_of(line)) for path in paths for line in commands_of(path)]
    return [pytest.param(*words, id=f"{path.name}: {words[0]}") for path, words in found if words]


class Parsed(BaseException):
    """The tool's parser has taken the command."""


@pytest.mark.parametrize(
    ("tool", "args"), shown(PAGES, commands_of_page) + shown(CONFIGS, commands_of_config)
)
def test_the_tool_takes_it(tool, args, monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def stop_after(*given, **more):
        parse(*given, **more)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop_after)
    monkeypatch.setattr(sys, "argv", [tool, *args])
    monkeypatch.syspath_prepend(str(Path(tool).parent))
    with pytest.raises(Parsed):
        importlib.import_module(tool.removesuffix(".py").replace("/", ".")).main()


def test_the_pages_show_commands():
    assert len(shown(PAGES, commands_of_page)) > 15
    assert len(shown(CONFIGS, commands_of_config)) > 15
