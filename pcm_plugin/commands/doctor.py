"""Check the environment, and print the command that repairs each problem.

    pcm doctor

Imports every library that this package uses, and looks for a GPU, Java, a browser and writable
folders. The exit code is 0 if training, captioning, the data engine and the scores work, otherwise
1. It runs in a broken environment too.
"""

import argparse
import platform
import sys
from collections.abc import Sequence
from itertools import groupby

from pcm_plugin import __version__
from pcm_plugin.commands.environment_checks import CORE, Check, check_environment
from pcm_plugin.errors import plain_errors


def format_report(checks: Sequence[Check]) -> str:
    """Return the lines of the report, with an empty line before each group."""
    width = max(len(check.name) for check in checks)
    lines = []
    shown: set[str] = set()
    for group, members in groupby(checks, key=lambda check: check.group):
        lines += ["", group]
        for check in members:
            mark = "ok  " if check.problem is None else "FAIL" if group == CORE else "no  "
            text = ": ".join(filter(None, [check.found, check.problem]))
            lines.append(f"  {mark}  {check.name:{width}}  {text}")
            indent = " " * (width + 10)
            if check.repair:
                repair = "as above" if check.repair in shown else check.repair
                lines.append(f"{indent}repair: {repair}")
                shown.add(check.repair)
            if check.problem and check.works_without:
                lines.append(f"{indent}works without it: {check.works_without}")
    return "\n".join(lines)


@plain_errors()
def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args()
    print(f"pcm-plugin {__version__}, Python {platform.python_version()}, {platform.platform()}")
    print(sys.executable, flush=True)
    checks = check_environment()
    print(format_report(checks))
    broken = [check.name for check in checks if check.group == CORE and check.problem]
    print()
    if broken:
        print(f"The core does not work: {', '.join(broken)}")
        sys.exit(1)
    print("The core works.")
