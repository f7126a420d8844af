"""Run a command of ``pcm``, or a script, in a process that is forked after the imports."""

import multiprocessing
import os
import resource
import runpy
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import thread
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

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
_FORKS = "TEST_FORKS"
_run_process = subprocess.run


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
    forks: bool = False,
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
        forks: Whether the commands that it runs are forks too, and no new processes.

    Returns:
        The first exit code that is not 0, and the output.
    """
    if largest_file is not None:
        env = {**(env or {}), _LARGEST_FILE: str(largest_file)}
    if forks:
        env = {**(env or {}), _FORKS: "1"}
    children = start(name, *args, log=log, processes=processes, launcher=launcher, env=env)
    return _join(children, log, timeout)


def run_script(
    path: Path, *args: object, log: Path, env: dict[str, str] | None = None, timeout: float = 100
) -> Result:
    """Run ``python path`` with arguments to its end.

    Args:
        path: A script.
        *args: Its arguments.
        log: File for what it prints.
        env: Environment variables to set.
        timeout: Seconds after which it is killed.
    """
    words = [str(path.resolve()), *map(str, args)]
    child = _SERVER.Process(target=_run_script, args=(words, str(log), env or {}))
    child.start()
    return _join([child], log, timeout)


def _join(children: list[BaseProcess], log: Path, timeout: float) -> Result:
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
    # A fork has the imports already.
    is_fork = multiprocessing.parent_process() is not None
    context = multiprocessing.get_context("fork") if is_fork else _SERVER
    children = [
        context.Process(target=_run, args=(name, words, str(path), env))
        for path, env in zip(logs, environments, strict=True)
    ]
    for child in children:
        child.start()
    return children


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _print_to(log: str, env: dict[str, str]) -> None:
    file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(env)
    if _LARGEST_FILE in env:
        limit = int(env[_LARGEST_FILE])
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def _run(name: str, words: list[str], log: str, env: dict[str, str]) -> None:
    _print_to(log, env)
    # A fork that a thread has made cannot wait for this thread at its exit.
    thread._threads_queues.clear()
    if _FORKS in env:
        subprocess.run = _run_arguments
    cli.main([name, *words])


def _run_arguments(
    arguments: str | Sequence[str], *args: Any, stdout: Any = None, **settings: Any
) -> subprocess.CompletedProcess[str]:
    """Run a process of ``pcm`` as a fork, in place of ``subprocess.run``."""
    if "pcm_plugin" not in arguments:
        return _run_process(arguments, *args, stdout=stdout, **settings)
    first = arguments.index("pcm_plugin") + 1
    option = "--nproc_per_node"
    processes = int(arguments[arguments.index(option) + 1]) if option in arguments[:first] else 1
    name, *rest = arguments[first:]
    with tempfile.NamedTemporaryFile() as file:
        log, env = Path(file.name), settings.get("env")
        result = run(
            name, *rest, log=log, processes=processes, launcher=False, env=env, timeout=300
        )
    print(result.output, file=stdout, flush=True)
    return subprocess.CompletedProcess(arguments, result.code)


def _run_script(words: list[str], log: str, env: dict[str, str]) -> None:
    _print_to(log, env)
    sys.argv = words
    sys.path.insert(0, str(Path(words[0]).parent))
    runpy.run_path(words[0], run_name="__main__")
