"""Commands shown in the documentation and in configs are accepted by ``pcm``."""

import argparse
import functools
import re
import shlex

import pytest
from mmengine.config import Config

from pcm_plugin import cli
from pcm_plugin.commands.build_commands import build_command
from pcm_plugin.engine.config_files import list_configs
from pcm_plugin.engine.config_modules import list_input_files
from tests.mmpretrain_models import import_error
from tests.test_docs.pages import PAGES, ROOT, code_blocks, inline_code, page_id

CONFIGS = [*list_configs().values()]
# `pcm NAME`, in one or several processes.
PCM = r"(?:pcm|(?:python|torchrun --nproc_per_node \d+) -m pcm_plugin) ([a-z][a-z-]*)"
COMMAND = re.compile(rf"\s*(?:\w+=\S+ )*(?:srun )?{PCM}(?: (.*))?$")
NAMED = re.compile(rf"\b{PCM}")
BENCHMARK = re.compile(r"\bbenchmarks/[\w/]+\.py\b")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def lines_of_page(path):
    return "\n".join(code_blocks(path)).replace("\\\n", " ").splitlines()


def commands_of_config(path):
    if "blip" in path.name and import_error():  # the tests of BLIP state this as well
        return
    cfg = Config.fromfile(path)
    for file in list_input_files(cfg):
        yield from (build_command(cfg, file) or "").split("&&")


def split_command(line):
    """Return name and arguments, or None for a line that is not a complete command."""
    match = COMMAND.match(line)
    if not match or "[" in line or "..." in line:
        return None
    lexer = shlex.shlex(match[2] or "", posix=True, punctuation_chars=True)
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
def parser_of(name):
    """Return the parser of a command, without running the command."""

    def stop(parser, *args, **kwargs):
        raise ParserBuilt(parser)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        with pytest.raises(ParserBuilt) as built:
            cli.main([name])
    return built.value.args[0]


def options_of(parser):
    """Return the options of a parser and of its subcommands."""
    options = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            options.update(*map(options_of, action.choices.values()))
    return options


@pytest.mark.parametrize(
    ("name", "args"),
    complete_commands(PAGES, lines_of_page) + complete_commands(CONFIGS, commands_of_config),
)
def test_complete_commands_are_accepted(name, args):
    parser_of(name).parse_args(args)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_and_options_exist(page):
    """Also those in incomplete commands and in inline code, and those of benchmarks."""
    for command in [*lines_of_page(page), *inline_code(page)]:
        if found := NAMED.search(command):
            assert found[1] in cli.COMMANDS, command
            options = set(OPTION.findall(command[found.end() :]))
            assert options <= options_of(parser_of(found[1])), command
        elif script := BENCHMARK.search(command):
            assert (ROOT / script[0]).is_file(), command
            options = set(OPTION.findall(command[script.end() :]))
            # Benchmarks share some options, which are defined in another of their files.
            sources = "".join(path.read_text() for path in ROOT.glob("benchmarks/*.py"))
            assert all(option in sources for option in options), command


def test_pages_and_configs_contain_commands():
    assert len(complete_commands(PAGES, lines_of_page)) > 15
    assert len(complete_commands(CONFIGS, commands_of_config)) > 15
