"""Commands shown in the documentation and in configs are accepted by the tools."""

import argparse
import functools
import importlib
import re
import shlex

import pytest
from mmengine.config import Config

from pcm_plugin.commands.build_commands import build_command
from pcm_plugin.commands.config_files import list_configs
from pcm_plugin.engine.config_modules import list_input_files
from tests.test_docs.pages import PAGES, ROOT, code_blocks, inline_code, page_id

CONFIGS = [*list_configs().values()]
LAUNCHER = r"(?:\w+=\S+ )*(?:(?:\.venv/bin/)?python|torchrun --nproc_per_node \d+|srun python)"
COMMAND = re.compile(rf"\s*{LAUNCHER} (tools/\S+\.py)(.*)")
SCRIPT = re.compile(r"\b(tools|benchmarks)/([\w/]+)\.py\b")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def commands_of_page(path):
    blocks = "\n".join(code_blocks(path)).replace("\\\n", " ")
    return [*blocks.splitlines(), *inline_code(path)]


def commands_of_config(path):
    cfg = Config.fromfile(path)
    for file in list_input_files(cfg):
        yield from (build_command(cfg, file) or "").split("&&")


def split_command(line):
    """Return tool and arguments, or None for a line that is not a complete command of a tool."""
    match = COMMAND.match(line)
    if not match or "[" in line or "..." in line:
        return None
    lexer = shlex.shlex(match[2], posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    end = next((i for i, word in enumerate(words) if word in (";", "&&", "|", ">")), len(words))
    return match[1], words[:end]


def complete_commands(paths, commands_of):
    found = [(path, split_command(line)) for path in paths for line in commands_of(path)]
    return [pytest.param(*words, id=f"{path.name}: {words[0]}") for path, words in found if words]


class ParserBuilt(Exception):
    """Raised in place of parsing, with the parser."""


@functools.cache
def parser_of(tool):
    """Return the parser of a tool, without running the tool."""

    def stop(parser, *args, **kwargs):
        raise ParserBuilt(parser)

    command = tool.removeprefix("tools/").removesuffix(".py").replace("/", ".")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        with pytest.raises(ParserBuilt) as built:
            importlib.import_module(f"pcm_plugin.commands.{command}").main()
    return built.value.args[0]


def options_of(parser):
    """Return the options of a parser and of its subcommands."""
    options = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            options.update(*map(options_of, action.choices.values()))
    return options


@pytest.mark.parametrize(
    ("tool", "args"),
    complete_commands(PAGES, commands_of_page) + complete_commands(CONFIGS, commands_of_config),
)
def test_tools_accept_complete_commands(tool, args):
    assert (ROOT / tool).is_file()
    parser_of(tool).parse_args(args)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_scripts_and_options_exist(page):
    """Also those in incomplete commands, and those of benchmarks."""
    for command in commands_of_page(page):
        script = SCRIPT.search(command)
        if script is None:
            continue
        assert (ROOT / script[0]).is_file(), command
        options = set(OPTION.findall(command[script.end() :]))
        if script[1] == "tools":
            assert options <= options_of(parser_of(script[0])), command
        else:
            # Benchmarks share some options, which are defined in another of their files.
            sources = "".join(path.read_text() for path in ROOT.glob("benchmarks/*.py"))
            assert all(option in sources for option in options), command


def test_pages_and_configs_contain_commands():
    assert len(complete_commands(PAGES, commands_of_page)) > 15
    assert len(complete_commands(CONFIGS, commands_of_config)) > 15
