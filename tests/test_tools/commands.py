"""Run a command of ``pcm`` in a process that is forked after the imports."""

import multiprocessing
import os
import resource
import socket
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from pcm_plugin import cli

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "diffusers",
        "matplotlib.pyplot",
        "mmengine.runner",
        "open_clip",
        "pcm_plugin.apis.inferencer",
        "pcm_plugin.commands.captioning",
        "pcm_plugin.commands.testing",
        "pcm_plugin.commands.training",
        "pcm_plugin.synthesis.pipeline.dataset",
        "textblob.en",
        "torch.distributed.nn",
        "transformers",
        "yapf",
    ]
)
_LARGEST_FILE = "TEST_LARGEST_FILE"


@dataclass
class Result:
    code: int
    output: str


def run(
    name: str,
    *args: object,
    log: Path,
    processes: int = 1,
    timeout: float = 100,
    launcher: bool = True,
    env: dict[str, str] | None = None,
    largest_file: int | None = None,
) -> Result:
    """Run ``pcm <name>`` to its end, in a group of processes as torchrun would start them.

    Args:
        name: Name of the command.
        *args: Its arguments.
        log: File for what it prints; that of the first process, where there are several.
        processes: Size of the group.
        timeout: Seconds after which it is killed.
        launcher: Whether a group is told so by ``--launcher`` too.
        env: Environment variables to set.
        largest_file: Bytes after which writing a file fails, as on a disk that is full.

    Returns:
        The first exit code that is not 0, and the output.
    """
    if largest_file is not None:
        env = {**(env or {}), _LARGEST_FILE: str(largest_file)}
    children = start(name, *args, log=log, processes=processes, launcher=launcher, env=env)
    for child in children:
        child.join(timeout)
    stuck = [child for child in children if child.exitcode is None]
    for child in stuck:
        child.kill()
    if stuck:
        raise TimeoutError(log.read_text())
    codes = [child.exitcode for child in children if child.exitcode]
    return Result(codes[0] if codes else 0, log.read_text())


def start(
    name: str,
    *args: object,
    log: Path,
    processes: int = 1,
    launcher: bool = True,
    env: dict[str, str] | None = None,
) -> list[BaseProcess]:
    """Start what :func:`run` runs, and return at once."""
    words = [str(arg) for arg in args]
    environments = [env or {}]
    if processes > 1:
        words += ["--launcher", "pytorch"] if launcher else []
        group = dict(WORLD_SIZE=str(processes), MASTER_ADDR="127.0.0.1", MASTER_PORT=_free_port())
        environments = [
            dict(env or {}, **group, RANK=str(rank), LOCAL_RANK=str(rank))
            for rank in range(processes)
        ]
    logs = [log if rank == 0 else f"{log}.{rank}" for rank in range(processes)]
    children = [
        _SERVER.Process(target=_run, args=(name, words, str(path), env))
        for path, env in zip(logs, environments, strict=True)
    ]
    for child in children:
        child.start()
    return children


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _run(name: str, words: list[str], log: str, env: dict[str, str]) -> None:
    file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(env)
    if _LARGEST_FILE in env:
        limit = int(env[_LARGEST_FILE])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    cli.main([name, *words])
