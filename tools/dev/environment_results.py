"""Summarize the test run of a set of versions, and write the table of docs/environments.md.

python tools/dev/environment_results.py record SET RESULTS   (in the environment of the set)
python tools/dev/environment_results.py table RESULTS
"""

import argparse
import ast
import datetime
import json
import os
import platform
import re
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "environments.md"
BEGIN = "<!-- written by tools/dev/environment_results.py -->"
# Alternatives in one row.
MAIN_PACKAGES = [
    ["torch"],
    ["torchvision"],
    ["mmengine", "onedl-mmengine"],
    ["mmpretrain", "onedl-mmpretrain"],
    ["mmcv-lite", "onedl-mmcv"],
    ["transformers"],
    ["diffusers"],
    ["open-clip-torch"],
    ["timm"],
    ["huggingface-hub"],
    ["numpy"],
    ["gradio"],
]
END = "<!-- end of what tools/dev/environment_results.py wrote -->"


def read_pins(name: str) -> dict[str, str]:
    """Return the versions of a constraints file by normalized name."""
    lines = (ROOT / "constraints" / f"{name}.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {normalize(package): version for package, version in pairs}


def read_header(name: str) -> dict[str, str]:
    """Return the entries of the first lines of a constraints file, such as ``python``."""
    lines = (ROOT / "constraints" / f"{name}.txt").read_text().splitlines()
    return dict(line[2:].split(": ", 1) for line in lines if line.startswith("# "))


def normalize(package: str) -> str:
    """Return the name of a distribution as package indexes spell it."""
    return re.sub(r"[-_.]+", "-", package).lower()


def read_cases(report: Path) -> dict[str, ElementTree.Element]:
    """Return the tests of a JUnit report of pytest by their names."""
    cases = ElementTree.parse(report).getroot().iter("testcase")
    return {f"{case.get('classname')}::{case.get('name')}": case for case in cases}


def has_failed(case: ElementTree.Element) -> bool:
    """Return whether a test failed or could not be run."""
    return case.find("failure") is not None or case.find("error") is not None


def skip_reason(skipped: ElementTree.Element) -> str:
    """Return why a test, or a file of tests, was skipped."""
    message = skipped.get("message") or ""
    if message == "collection skipped":  # then the text is (file, line, reason)
        message = ast.literal_eval(skipped.text or "")[2]
    return message.removeprefix("Skipped: ")


def failed_files(report: Path) -> list[str]:
    """Return the files of tests that failed."""
    names = [name for name, case in read_cases(report).items() if has_failed(case)]
    modules = {name.strip(":").split("::")[0] for name in names}
    return sorted(f"{module.replace('.', '/')}.py" for module in modules)


def summarize(*reports: Path) -> dict[str, Any]:
    """Count the outcomes in JUnit reports of pytest; later reports replace earlier ones."""
    cases: dict[str, ElementTree.Element] = {}
    for report in reports:
        repeated = read_cases(report)
        files = {name.strip(":").split("::")[0] for name in repeated}
        # A file that could not be imported is an entry without tests.
        cases = {k: v for k, v in cases.items() if k.strip(":").split("::")[0] not in files}
        cases |= repeated
    reasons: Counter[str] = Counter()
    failed = []
    passed = 0
    for name, case in cases.items():
        skipped = case.find("skipped")
        if has_failed(case):
            failed.append(name)
        elif skipped is not None:
            reasons[skip_reason(skipped)] += 1
        else:
            passed += 1
    suites = ElementTree.parse(reports[0]).getroot().iter("testsuite")
    seconds = sum(float(suite.get("time", 0)) for suite in suites)
    return dict(
        passed=passed,
        failed=sorted(failed),
        skipped=dict(sorted(reasons.items())),
        seconds=round(seconds),
    )


def record(name: str, folder: Path) -> int:
    """Write the result of a set to ``folder/name.json`` and print it."""
    pins = read_pins(name)
    installed = {normalize(d.name): d.version for d in metadata.distributions()}
    # pip itself and this package are not pinned.
    differing = {
        package: version
        for package, version in sorted(installed.items())
        if package not in ("pip", "pcm-plugin") and pins.get(package) != version
    }
    report, again = folder / f"{name}.xml", folder / f"{name}.again.xml"
    if not report.is_file():
        print(f"{name}: pytest wrote no report; see {folder / f'{name}.log'}", file=sys.stderr)
        return 1
    summary = summarize(report, *([again] if again.is_file() else []))
    if not summary["passed"]:
        print(f"{name}: no test passed; see {folder / f'{name}.log'}", file=sys.stderr)
        return 1
    result = dict(
        python=platform.python_version(),
        date=datetime.date.today().isoformat(),
        unpinned=differing,
        # Such as `-k NAME`, with which not all tests run.
        arguments=os.environ.get("PYTEST_ARGS", ""),
        **summary,
    )
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    skipped = result["skipped"]
    print(
        f"{name}: Python {result['python']}, {result['passed']} passed, "
        f"{len(result['failed'])} failed, {sum(skipped.values())} skipped, {result['seconds']} s"
    )
    for reason, count in skipped.items():
        print(f"  skipped {count}: {reason}")
    for test in result["failed"]:
        print(f"  FAILED {test}")
    for package, version in differing.items():
        print(f"  {package} {version} is installed, constraints/{name}.txt: {pins.get(package)}")
    return 1 if differing or result["failed"] else 0


def table(folder: Path) -> int:
    """Write the versions of all sets, and the results that exist, to the page."""
    results = {
        path.stem: json.loads(path.read_text())
        for path in folder.glob("*.json")
        if path.stem in set_names()
    }
    for name, result in results.items():
        if result["unpinned"] or result["arguments"]:
            which = "other versions" if result["unpinned"] else f"PYTEST_ARGS={result['arguments']}"
            print(f"{name} was tested with {which}: run it again", file=sys.stderr)
            return 1
    text = "\n\n".join([version_table(), *([result_table(results)] if results else [])])
    before, rest = PAGE.read_text().split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    return 0


def version_table() -> str:
    """Return a Markdown table of the main packages, with one column per set."""
    names = set_names()
    pins = {name: read_pins(name) for name in names}
    rows = [["Python", *(read_header(name)["python"] for name in names)]]
    for packages in MAIN_PACKAGES:
        cells = []
        for name in names:
            found = [f"{p} {pins[name][p]}" for p in packages if p in pins[name]]
            # The name of the package is in the first column already if there is no choice.
            cells.append(found[0].removeprefix(f"{packages[0]} ") if found else "")
        rows.append([packages[0], *cells])
    return markdown_table(["", *names], rows)


def result_table(results: dict[str, dict[str, Any]]) -> str:
    """Return Markdown tables of the results, and of the reasons for which tests were skipped."""
    names = [name for name in set_names() if name in results]
    rows = []
    reasons: dict[str, dict[str, int]] = {}
    for name in names:
        result = results[name]
        for reason, count in result["skipped"].items():
            reasons.setdefault(reason, {})[name] = count
        counts = [result["passed"], len(result["failed"]), sum(result["skipped"].values())]
        minutes = f"{result['seconds'] / 60:.0f}"
        rows.append([name, result["python"], *map(str, counts), minutes, result["date"]])
    skips = [
        [reason, *(str(counts.get(name, "")) for name in names)]
        for reason, counts in sorted(reasons.items())
    ]
    header = ["set", "Python", "passed", "failed", "skipped", "minutes", "date"]
    return f"{markdown_table(header, rows)}\n\n{markdown_table(['skipped because', *names], skips)}"


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """Return a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def set_names() -> list[str]:
    """Return the names of the sets in the order of the page."""
    order = ["default", "py312", "current", "onedl", "oldest"]
    names = [path.stem for path in (ROOT / "constraints").glob("*.txt")]
    return sorted(names, key=lambda name: (order.index(name) if name in order else 99, name))


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recorder = commands.add_parser("record", help="summarize RESULTS/SET.xml")
    recorder.add_argument("set")
    recorder.add_argument("results", type=Path)
    lister = commands.add_parser("failed", help="print the files of the tests that failed")
    lister.add_argument("report", type=Path)
    commands.add_parser("table", help="write the table").add_argument("results", type=Path)
    args = parser.parse_args()
    if args.command == "record":
        return record(args.set, args.results)
    if args.command == "table":
        return table(args.results)
    print(*failed_files(args.report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
