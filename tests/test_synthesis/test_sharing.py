import errno
import multiprocessing
import os
import re
import signal
import time

import pytest

from pcm_plugin.errors import UserError
from pcm_plugin.formats.shards import Shard, ShardFolder
from pcm_plugin.synthesis.ranks import Rank
from pcm_plugin.synthesis.sharing import claim_shards

WANTED = [Shard(f"shard-{i:05d}", 10, "d") for i in range(12)]


def work(path, rank, dies_in=None, barrier=None):
    """Make shards slowly, and record which rank made each; optionally die during one.

    With a barrier, no rank finishes its first shard before all have one.
    """
    folder = ShardFolder(path, "x")
    for i, tick in claim_shards(folder, WANTED, rank, "work"):
        if i == dies_in:
            (path / "dead").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if barrier is not None and not (path / f"made-by-{rank.index}").exists():
            barrier.wait(60)
        time.sleep(0.02)
        with open(path / f"made-by-{rank.index}", "a") as file:
            file.write(f"{i}\n")
        folder.commit(WANTED[i], [], 10)
        tick(10)


def start(path, *args, **kwargs):
    process = multiprocessing.get_context("fork").Process(
        target=work, args=(path, *args), kwargs=kwargs
    )
    process.start()
    return process


def made(path):
    return sorted(int(line) for file in path.glob("made-by-*") for line in file.read_text().split())


@pytest.mark.parametrize("count", [1, 3])
def test_each_shard_is_made_once(tmp_path, count):
    ShardFolder.open_for_write(tmp_path, "x", {}, WANTED)
    barrier = multiprocessing.get_context("fork").Barrier(count)
    processes = [start(tmp_path, Rank(i, count), barrier=barrier) for i in range(count)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * count
    assert made(tmp_path) == list(range(len(WANTED)))
    assert len(list(tmp_path.glob("made-by-*"))) == count


def test_others_finish_the_shard_of_a_killed_process(tmp_path):
    ShardFolder.open_for_write(tmp_path, "x", {}, WANTED)
    lost = start(tmp_path, Rank(0, 2), dies_in=4)
    while not (tmp_path / "dead").exists():
        time.sleep(0.01)
    survivor = start(tmp_path, Rank(1, 2))
    lost.join()
    survivor.join()
    assert (lost.exitcode, survivor.exitcode) == (-signal.SIGKILL, 0)
    assert made(tmp_path) == list(range(len(WANTED)))
    assert ShardFolder(tmp_path, "x").complete


def test_one_bar_counts_for_all_ranks(tmp_path, capfd):
    folder = ShardFolder.open_for_write(tmp_path, "x", {}, WANTED)
    folder.commit(WANTED[0], [], 10)
    processes = [start(tmp_path, Rank(i, 2)) for i in range(2)]
    for process in processes:
        process.join()
    shown = capfd.readouterr().err
    assert "120/120" in shown
    # There is only one bar, which ends its line.
    assert shown.count("\n") == 1


def test_the_bar_counts_what_other_ranks_commit(tmp_path, capfd):
    folder = ShardFolder.open_for_write(tmp_path, "x", {}, WANTED)
    for i, tick in claim_shards(folder, WANTED, Rank(0, 2), "work"):
        if i == 0:
            time.sleep(0.11)  # what tqdm waits before it shows more
            ShardFolder(tmp_path, "x").commit(WANTED[7], [], 10)  # by the other rank
            tick(3)
            assert "13/120" in capfd.readouterr().err
        folder.commit(WANTED[i], [], 10)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "manifest.json"}


def test_the_bar_starts_with_the_finished_shards_and_shows_rate_and_time_left(tmp_path, capfd):
    folder = ShardFolder.open_for_write(tmp_path, "x", {}, WANTED)
    folder.commit(WANTED[0], [], 10)
    shown = []
    for i, tick in claim_shards(folder, WANTED, Rank(0, 3), "work"):
        tick(4)
        tick(6)
        shown.append(capfd.readouterr().err)
        folder.commit(WANTED[i], [], 10)
        time.sleep(0.11)  # what tqdm waits before it shows more
    first = [int(n) for n in re.findall(r"(\d+)/120", shown[0])]
    assert first[0] == 10
    assert max(first) <= 20
    counts = [int(n) for n in re.findall(r"(\d+)/120", "".join(shown))]
    assert counts == sorted(counts)
    assert re.search(r"\[\d\d:\d\d<\d\d:\d\d, +[\d.]+img/s\]", "".join(shown))


def test_a_shard_that_another_machine_removed_from_the_manifest_is_made_again(tmp_path):
    """Where locks only hold on one machine, manifests can overwrite each other."""
    folder = ShardFolder.open_for_write(tmp_path, "x", {}, WANTED)
    made = []
    for i, _ in claim_shards(folder, WANTED, Rank(), "work"):
        before = (tmp_path / "manifest.json").read_bytes()
        folder.commit(WANTED[i], [], 10)
        if made.count(5) == 0 and i == 5:
            (tmp_path / "manifest.json").write_bytes(before)
        made.append(i)
    assert made == [*range(len(WANTED)), 5]
    assert ShardFolder(tmp_path, "x").complete


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuses(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    folder = ShardFolder.open_for_write(tmp_path, "x", {}, WANTED)
    monkeypatch.setattr("fcntl.flock", refuses)
    with pytest.raises(UserError, match=r"shard-00000.lock has no locks \(No locks available\)"):
        next(claim_shards(folder, WANTED, Rank(), "work"))
    with pytest.raises(UserError, match=f"{tmp_path}/.lock has no locks .*: mount it with locks"):
        folder.commit(WANTED[0], [], 10)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("RANK", "WORLD_SIZE", "LOCAL_RANK"), Rank(3, 8, 1)),
        (("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"), Rank(3, 8, 1)),
        ((), Rank(0, 1, 0)),
    ],
)
def test_torchrun_and_slurm_say_which_rank_this_is(monkeypatch, names, expected):
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in zip(names, "381", strict=False):
        monkeypatch.setenv(name, value)
    assert Rank.from_environment() == expected
