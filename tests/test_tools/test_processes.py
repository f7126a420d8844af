"""Commands that another command starts, and how they are printed."""

import subprocess

from pcm_plugin import __version__
from pcm_plugin.commands.processes import process_arguments, shell_command
from pcm_plugin.engine.config_files import find_config


def test_a_started_command_is_that_of_pcm(tmp_path):
    command = process_arguments(["--version"])
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == f"pcm-plugin {__version__}\n"
    several = process_arguments(["extract", tmp_path], processes=2)
    assert several[3:] == [
        *("--standalone", "--nproc_per_node", "2"),
        *command[1:3],
        "extract",
        str(tmp_path),
    ]


def test_commands_are_shown_as_typed(tmp_path, monkeypatch):
    assert shell_command(["extract", "my images"]) == "pcm extract 'my images'"
    shown = shell_command(["extract", "x"], processes=2)
    assert shown == "torchrun --standalone --nproc_per_node 2 -m pcm_plugin extract x"
    assert shell_command(["train", find_config("syntic_toy")]) == (
        "pcm train configs/syntic/syntic_toy.py"
    )
    monkeypatch.chdir(tmp_path)
    assert shell_command(["train", find_config("syntic_toy")]) == "pcm train syntic/syntic_toy.py"
