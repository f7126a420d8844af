"""Run all measurements and checks on one NVIDIA GPU within a given time.

    python benchmarks/gpu.py --out FOLDER --minutes 8
    python benchmarks/gpu.py --out FOLDER --device cpu --minutes 2    # dry run, small sizes
    python benchmarks/gpu.py --out FOLDER --reuse --write   # write gpu.json to docs/benchmarks.md

No network is needed: all weights are random, except those of the toy world, which are part of the
package. Steps run in the order of their importance. After each step, FOLDER/gpu.json and
FOLDER/gpu.md are updated, and its output is appended to FOLDER/gpu.log. A step that does not fit
into the remaining time is skipped; a step that fails or exceeds its limit is recorded, and the next
ones still run. The exit code is 1 if a step failed.
"""

import argparse
import contextlib
import gc
import json
import multiprocessing
import os
import shlex
import signal
import sys
import tempfile
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from marked_page import read_marked, write_marked

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- written by benchmarks/gpu.py -->", "<!-- end of what benchmarks/gpu.py wrote -->"
_RESERVE = 5.0
"""Seconds reserved for stopping a step and writing the results."""
_START_TIMEOUT = 120.0
"""Seconds until which a worker must have finished its imports."""

Result = dict[str, Any]


def run_worker(pipe: Connection, device: str, log: Path, scratch: str) -> None:
    """Run the steps that are received through a pipe; the main function of a worker process.

    Args:
        pipe: Receives names of steps with their time limits, and sends the results.
        device: Device of the steps.
        log: File for all output.
        scratch: Folder for temporary files, which remain if the process is killed.
    """
    os.environ["TMPDIR"] = scratch
    # As in `pcm train`, for deterministic products; it is read only once.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.setsid()  # to stop it together with its child processes
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.path.insert(0, str(ROOT))
    import torch
    from gpu_steps import STEPS, Run

    torch.set_float32_matmul_precision("highest")  # no TF32
    if device == "cpu":
        torch.set_num_threads(1)
    # The facts that the parent needs, so that it does not have to import the steps itself.
    facts = ("title", "needs", "limit", "dry_needs")
    pipe.send({name: {fact: getattr(step, fact) for fact in facts} for name, step in STEPS.items()})
    while (order := pipe.recv()) is not None:
        name, seconds = order
        print(f"\n== {name}", flush=True)
        run = Run(device, seconds)
        start = time.monotonic()
        try:
            if device != "cpu":
                torch.cuda.init()
                torch.cuda.reset_peak_memory_stats()
            result: Result = {"status": "ok", "result": STEPS[name].work(run)}
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            trace = traceback.format_exc().splitlines()[-12:]
            reason = f"{type(error).__name__}: {error}"
            result = {"status": "failed", "result": reason[:3000], "traceback": trace}
        result["took_seconds"] = time.monotonic() - start
        # A GPU in an error state raises on every call.
        with contextlib.suppress(RuntimeError):
            if device != "cpu":
                result["peak_bytes"] = torch.cuda.max_memory_allocated()
            gc.collect()
            torch.cuda.empty_cache()
        pipe.send({**result, "figures": run.figures})


class Worker:
    """Process that runs steps, so that a step which hangs or crashes does not affect the others."""

    def __init__(self, device: str, log: Path, scratch: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=run_worker, args=(other, device, log, scratch))
        self.process.start()
        other.close()
        self.log = log

    def start(self, left: float) -> dict[str, Any]:
        """Wait for the imports of the worker and return its steps; exit if it fails."""
        found = self.receive(min(_START_TIMEOUT, left))
        if "status" in found:
            self.kill()
            sys.exit(
                "\n".join(
                    ["the worker process failed to start:", found["result"], *found["traceback"]]
                )
            )
        return found

    def receive(self, seconds: float) -> Any:
        """Wait for a message of the worker; return a failed result if it hangs or has exited."""
        start = time.monotonic()
        try:
            if self.pipe.poll(max(seconds, 0)):
                return self.pipe.recv()
            reason = f"stopped after {seconds:.0f} seconds"
        except (EOFError, OSError):
            self.process.join(5)
            reason = f"the process exited with code {self.process.exitcode}"
        lines = self.log.read_text(errors="replace").splitlines()[-12:]
        took = time.monotonic() - start
        return {"status": "failed", "result": reason, "traceback": lines, "took_seconds": took}

    def run(self, name: str, seconds: float) -> Result:
        """Run a step."""
        with contextlib.suppress(OSError):  # `receive` reports it
            self.pipe.send((name, seconds))
        return self.receive(seconds)

    def stop(self) -> None:
        """Stop the process after its current step."""
        with contextlib.suppress(OSError):
            self.pipe.send(None)
        self.process.join(_RESERVE - 2)
        self.kill()

    def kill(self) -> None:
        """Kill the process and its child processes."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid or 0, signal.SIGKILL)
        self.process.kill()
        self.process.join(5)
        self.pipe.close()


def measure(args: argparse.Namespace, start: float, scratch: str) -> Result:
    """Run the steps, and write the results after each of them."""
    results: Result = {"command": shlex.join(["python", *sys.argv]), "steps": {}}
    results |= {"device": args.device, "date": time.strftime("%Y-%m-%d"), "minutes": args.minutes}
    deadline = start + 60 * args.minutes - _RESERVE
    worker: Worker | None = Worker(args.device, args.out / "gpu.log", scratch)
    steps = worker.start(deadline - time.monotonic())
    if unknown := set(args.steps or ()) - set(steps):
        worker.kill()
        sys.exit(f"--steps must be among {' '.join(steps)}, got {' '.join(sorted(unknown))}")
    for name in args.steps or steps:
        step, left = steps[name], deadline - time.monotonic()
        needs = step["dry_needs" if args.device == "cpu" else "needs"]
        if args.steps:
            needs = 0
        if needs is None:
            result = {"status": "skipped", "result": "not part of a dry run"}
        elif left < max(needs, 1):
            reason = f"needs about {needs:.0f} seconds, but {max(left, 0):.0f} were left"
            result = {"status": "skipped", "result": reason}
        else:
            if worker is None:
                worker = Worker(args.device, args.out / "gpu.log", scratch)
                worker.start(left)
                left = deadline - time.monotonic()
            result = worker.run(name, min(step["limit"], left))
        results["steps"][name] = {"title": step["title"], **result}
        results["took_seconds"] = time.monotonic() - start
        write_results(args.out, results)
        print(f"{result['status']:8}{name}: {result['result']}", flush=True)
        if result["status"] == "failed" and worker is not None:
            # After an error, the state of the GPU or of the process may affect other steps.
            worker.kill()
            worker = None
    if worker is not None:
        worker.stop()
    return results


def write_results(folder: Path, results: Result) -> None:
    """Write ``gpu.json`` and ``gpu.md``."""
    texts = {"gpu.json": json.dumps(results, indent=1, default=str) + "\n"}
    texts["gpu.md"] = table(results) + "\n"
    for name, text in texts.items():
        with (folder / f"{name}.part").open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(folder / f"{name}.part", folder / name)


def table(results: Result) -> str:
    """Return the Markdown section of the page."""
    about = results["steps"].get("device", {}).get("figures", {})
    hardware = [about.get("cpu", "")]
    if "gpu" in about:
        memory = f"{about['gpu_bytes'] / 2**30:.0f} GiB"
        versions = f"CUDA {about['cuda']}, cuDNN {about['cudnn']}, driver {about['driver']}"
        hardware = [about["gpu"], memory, *hardware, versions]
    packages = (f"{name} {version}" for name, version in about.get("versions", {}).items())
    lines = [
        f"{', '.join(hardware)}; {', '.join(packages)}.",
        f"{results['date']}, `{results['command']}`, {results['took_seconds']:.0f} seconds.",
        "",
        "| step | result | peak memory | time |",
        "|---|---|---|---|",
    ]
    for step in results["steps"].values():
        text = " ".join(step["result"].replace("|", "\\|").split())
        if step["status"] != "ok":
            text = f"**{step['status']}**: {text[:300]}"
        peak = step.get("peak_bytes")
        memory = "" if peak is None else f"{peak / 2**30:.2f} GiB"
        took = f"{step['took_seconds']:.0f} s" if "took_seconds" in step else ""
        lines.append(f"| {step['title']} | {text} | {memory} | {took} |")
    return "\n".join(lines)


def main() -> None:
    start = time.monotonic()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--minutes", type=float, default=8, help="total time")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a dry run")
    parser.add_argument(
        "--steps", nargs="+", help="run only these, in this order, and do not skip them"
    )
    parser.add_argument("--write", action="store_true", help=f"write the table to {PAGE.name}")
    parser.add_argument(
        "--reuse", action="store_true", help="use FOLDER/gpu.json instead of measuring"
    )
    args = parser.parse_args()
    if args.write:
        read_marked(PAGE, BEGIN, END)
    if args.reuse:
        results = json.loads((args.out / "gpu.json").read_text())
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "gpu.log").unlink(missing_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            results = measure(args, start, scratch)
    print(f"\n{table(results)}")
    if args.write:
        write_marked(PAGE, BEGIN, END, table(results))
    statuses = [step["status"] for step in results["steps"].values()]
    sys.exit(1 if "failed" in statuses else 0)


if __name__ == "__main__":
    main()
