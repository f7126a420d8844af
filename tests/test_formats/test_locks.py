"""Locks between processes."""

import multiprocessing
import os
import signal
import time

import pytest

from pcm_plugin.errors import LockedError
from pcm_plugin.formats.locks import file_lock


def hold(path, ready):
    with file_lock(path):
        ready.set()
        if os.fork() == 0:  # a worker, which outlives its parent
            time.sleep(5)
            os._exit(0)
        time.sleep(60)


def test_a_lock_is_held_until_its_holder_dies(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    holder = context.Process(target=hold, args=(tmp_path / "lock", ready))
    holder.start()
    assert ready.wait(20)
    with (
        pytest.raises(LockedError, match="another process holds the lock"),
        file_lock(tmp_path / "lock", blocking=False),
    ):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with file_lock(tmp_path / "lock", blocking=False):
        pass


def test_two_locks_of_one_process_exclude_each_other(tmp_path):
    with (
        file_lock(tmp_path / "lock"),
        pytest.raises(LockedError),
        file_lock(tmp_path / "lock", blocking=False),
    ):
        pass
