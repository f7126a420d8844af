"""Measure how long commands take to answer: the help, and the first caption of one image.

    python benchmarks/startup.py

Each command runs several times in a new process, and its fastest run is reported, since other load
on the machine only adds time. The time ends with the first line of the output; CPU time includes
the end of the process. The lower bound of a caption is a process that imports what every captioner
of this package is built on: torch, MMEngine's models and mmpretrain's data sample. The same imports
without pausing the garbage collector show what the pause saves. The last line is JSON.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gemm_timing import matrix_gflops, print_json
from PIL import Image

IMPORTS = "import torch, mmengine.model, mmpretrain.structures\n"
ANSWER = "print('imported')"
PAUSE = (
    "from pcm_plugin.commands.garbage_collection import paused_garbage_collection\n"
    "with paused_garbage_collection():\n    "
)
NAME = "pcm-net_toy"


def measure(words: list[str], repeats: int) -> dict[str, float]:
    """Return the least wall-clock seconds until Python answers, and its least CPU seconds."""
    runs = []
    for _ in range(repeats):
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-u", *words], stdout=subprocess.PIPE)
        assert process.stdout is not None
        is_answered = bool(process.stdout.readline())
        wall = time.perf_counter() - start
        process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status or not is_answered:
            sys.exit(f"{words} failed")
        runs.append((wall, usage.ru_utime + usage.ru_stime))
    walls, cpus = zip(*runs, strict=True)
    return {"wall": min(walls), "cpu": min(cpus)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7, help="runs of each command")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.png"
        Image.effect_noise((112, 112), 80).save(image)
        pcm = ["-m", "pcm_plugin"]
        commands = {
            "python": ["-c", "print(1)"],
            "import torch": ["-c", "import torch; print(1)"],
            "lower bound": ["-c", PAUSE + IMPORTS + ANSWER],
            "without the pause": ["-c", IMPORTS + ANSWER],
            "pcm --help": [*pcm, "--help"],
            "pcm caption --help": [*pcm, "caption", "--help"],
            "pcm caption": [*pcm, "caption", NAME, str(image)],
        }
        seconds = {name: measure(words, args.repeats) for name, words in commands.items()}
    for name, taken in seconds.items():
        print(f"{name:20} {taken['wall']:6.2f} s, CPU {taken['cpu']:6.2f} s")
    rate, first = matrix_gflops(), seconds["pcm caption"]["wall"]
    result = {"gemm_gflop": first * rate, "seconds": first, "matrix_gflops": rate}
    print_json(result | {"seconds_by_command": seconds}, {"repeats": args.repeats})


if __name__ == "__main__":
    main()
