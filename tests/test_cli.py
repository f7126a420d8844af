"""The program ``pcm``: its list of commands, their names and exit codes."""

import importlib
import re
import subprocess
import sys
from pathlib import Path
from pkgutil import walk_packages

import pytest

from pcm_plugin import __version__, cli, commands

HEAVY = ("torch", "mmengine", "mmpretrain", "numpy", "PIL", "pcm_plugin.commands.train")


def pcm(*words, **settings):
    command = [sys.executable, "-m", "pcm_plugin", *words]
    return subprocess.run(command, capture_output=True, text=True, **settings)


def test_the_help_lists_each_command_under_its_group():
    done = pcm("--help")
    assert done.returncode == 0, done.stderr
    assert pcm().stdout == done.stdout
    blocks = [block.splitlines() for block in done.stdout.strip().split("\n\n")[2:]]
    assert [block[0] for block in blocks] == list(cli.GROUPS)
    for (_, *lines), group in zip(blocks, cli.GROUPS.values(), strict=True):
        assert [line.split()[0] for line in lines] == list(group)
        assert all(len(line) <= 100 for line in lines)


def test_the_help_imports_no_library():
    code = (
        "import sys; from pcm_plugin.cli import main; main(['--help'])\n"
        f"found = [name for name in {HEAVY} if name in sys.modules]\n"
        "assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_command_is_in_the_table():
    modules = {
        info.name.removeprefix("pcm_plugin.commands.")
        for info in walk_packages(commands.__path__, "pcm_plugin.commands.")
        if re.search(
            r"^def main\(", Path(info.module_finder.find_spec(info.name).origin).read_text(), re.M
        )
    }
    assert {command.module for command in cli.COMMANDS.values()} == modules
    assert len(cli.COMMANDS) == len(modules)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_summary_is_that_of_the_module(name):
    module = importlib.import_module(f"pcm_plugin.commands.{cli.COMMANDS[name].module}")
    assert cli.COMMANDS[name].summary == module.__doc__.splitlines()[0]
    assert cli.COMMANDS[name].module.rpartition(".")[2] == name.replace("-", "_")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_help_of_a_command_names_the_program(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert re.match(rf"usage: pcm {name}\s", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("trian", "'trian': did you mean train? `pcm --help` lists"),
        ("make_dataset", "did you mean make-dataset?"),
        ("make_dataset.py", "did you mean make-dataset?"),
        ("xyzzy", "no command 'xyzzy': `pcm --help` lists"),
    ],
)
def test_an_unknown_command_is_reported_with_the_nearest_names(name, nearest):
    done = pcm(name)
    assert done.returncode == 1
    assert nearest in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_version_is_printed():
    assert pcm("--version").stdout == f"pcm-plugin {__version__}\n"


def test_exit_codes_are_those_of_the_command(tmp_path):
    missing = pcm("build-vocabulary", "none.txt", "--out", tmp_path / "v")
    assert missing.returncode == 1
    assert "none.txt" in missing.stderr
    assert "Traceback" not in missing.stderr
    usage = pcm("build-vocabulary")
    assert usage.returncode == 2
    assert usage.stderr.startswith("usage: pcm build-vocabulary ")


def test_the_files_in_tools_start_the_same_commands():
    """``mim`` needs these files, and the launch scripts need train.py and test.py."""
    paths = [path for path in Path("tools").rglob("*.py") if path.parent.name != "dev"]
    files = {path.stem: path.read_text() for path in paths}
    assert files.keys() == {name.replace("-", "_") for name in cli.COMMANDS}
    for name, command in cli.COMMANDS.items():
        text = files[name.replace("-", "_")]
        assert text.startswith(f'"""{command.summary}"""\n')
        assert f"from pcm_plugin.commands.{command.module} import main\n" in text


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("results", "--seeds"),
        ("results", "--jobs"),
        ("demo", "--processes"),
        ("measure-prior", "--count"),
        ("train-prior", "--clip-steps"),
    ],
)
@pytest.mark.parametrize("value", ["0", "-1", "two"])
def test_counts_are_checked_before_work_starts(
    command, option, value, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, option, value])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert f"argument {option}: must be a positive integer, got {value}" in error
    assert not list(tmp_path.iterdir())
