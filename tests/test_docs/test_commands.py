"""The commands of the documentation are accepted by the command-line parsers."""

import argparse
import functools
import importlib
import re
import shlex

import pytest

from tests.test_docs.pages import PAGES, ROOT, code_blocks, inline_code, page_id

_SCRIPT = re.compile(r"\b(tools|benchmarks)/([\w/]+)\.py\b")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
# Placeholders that a reader replaces, and options that are shown as optional.
_INCOMPLETE = re.compile(r"\.\.\.|\[-")

pages = pytest.mark.parametrize("page", PAGES, ids=page_id)


class _ParserBuilt(Exception):
    """Raised in place of parsing, with the parser."""


@functools.cache
def parser_of(name: str) -> argparse.ArgumentParser:
    """Return the parser of ``tools/NAME.py``, without running the command."""

    def stop(parser, *args, **kwargs):
        raise _ParserBuilt(parser)

    command = importlib.import_module(f"pcm_plugin.commands.{name.replace('/', '.')}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        with pytest.raises(_ParserBuilt) as built:
            command.main()
    return built.value.args[0]


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Return the options of a parser and of its subcommands."""
    options: set[str] = set()
    for action in parser._actions:
        options.update(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            options.update(*map(options_of, action.choices.values()))
    return options


def command_lines(page) -> list[str]:
    """Return the commands in the shell blocks of a page, continued lines joined."""
    text = "\n".join(code_blocks(page, "bash")).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip()]


@pages
def test_command_lines_are_accepted(page):
    for line in command_lines(page):
        script = _SCRIPT.search(line)
        if script is None or script[1] != "tools" or _INCOMPLETE.search(line):
            continue
        assert (ROOT / script[0]).exists(), f"{page_id(page)}: {line}"
        words = shlex.split(line[script.end() :].split(";")[0], comments=True)
        try:
            parser_of(script[2]).parse_args(words)
        except SystemExit as error:
            pytest.fail(f"{page_id(page)}: {line}: exit code {error.code}")


@pages
def test_options_exist(page):
    """Also those of inline code and of incomplete commands."""
    for code in [*command_lines(page), *inline_code(page)]:
        script = _SCRIPT.search(code)
        if script is None:
            continue
        assert (ROOT / script[0]).exists(), f"{page_id(page)}: {code}"
        options = set(_OPTION.findall(code[script.end() :]))
        if script[1] == "tools":
            assert options <= options_of(parser_of(script[2])), f"{page_id(page)}: {code}"
        else:
            source = (ROOT / script[0]).read_text()
            assert all(option in source for option in options), f"{page_id(page)}: {code}"
