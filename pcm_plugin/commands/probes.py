"""Code that runs in a separate process, so that a failing import does not affect this one."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

_TIMEOUT = 300
# Everything that the code prints goes to stderr, since stdout is for the outcomes. After an error
# the process ends, since a failed import may leave modules half imported.
_CHILD = """
import sys
sys.path[:] = sys.argv[1:]
import json, os, warnings
out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
warnings.simplefilter("ignore")
for name, code in json.load(sys.stdin).items():
    values, error = {}, None
    try:
        exec(code, values)
    except BaseException as problem:
        lines = str(problem).strip().splitlines() or [""]
        error = f"{type(problem).__name__}: {lines[-1].strip()}"
    print(json.dumps([name, error, values.get("result")]), file=out, flush=True)
    if error:
        break
out.flush()
os._exit(0)
"""


class Outcome(NamedTuple):
    """Outcome of a piece of code.

    Attributes:
        error: Type and last line of its exception, or how the process ended; None if it succeeded.
        result: Value of its variable ``result``.
    """

    error: str | None
    result: Any = None


def run_probes(probes: Mapping[str, str], timeout: float = _TIMEOUT) -> dict[str, Outcome]:
    """Run pieces of Python code one after the other; after an error, continue in a new process.

    Args:
        probes: Code by name.
        timeout: Seconds for one process. Defaults to 300.

    Returns:
        The outcome of each probe, by name.
    """
    outcomes: dict[str, Outcome] = {}
    while left := {name: code for name, code in probes.items() if name not in outcomes}:
        found, end = _run(left, timeout)
        outcomes |= found
        if len(found) < len(left) and all(outcome.error is None for outcome in found.values()):
            crashed = next(name for name in left if name not in found)
            outcomes[crashed] = Outcome(end)
    return outcomes


def _run(probes: Mapping[str, str], timeout: float) -> tuple[dict[str, Outcome], str]:
    """Return the outcomes of one process, and how it ended."""
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, *sys.path],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        output, _ = child.communicate(json.dumps(probes), timeout)
        code = child.returncode
        end = f"the process ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}"
    except subprocess.TimeoutExpired:
        child.kill()
        output, _ = child.communicate()
        end = f"not finished after {timeout:.0f} s"
    rows = [json.loads(line) for line in output.splitlines()]
    return {name: Outcome(error, result) for name, error, result in rows}, end
