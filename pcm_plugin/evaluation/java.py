"""The scores that only Java programs give: METEOR, SPICE, and COCO's own tokenizer.

pycocoevalcap brings METEOR's and the tokenizer's programs; SPICE wants more that pip cannot bring.
Nothing is written but in temporary folders.
"""

import contextlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pycocoevalcap

_CORENLP = "stanford-corenlp-3.6.0"
_CORENLP_ZIP = "http://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"
_GET_JAVA = "install a Java runtime (Debian: apt install default-jre-headless)"


def missing_requirement(name: str) -> str | None:
    """What one of the Java programs lacks here.

    Args:
        name: ``'METEOR'``, ``'SPICE'`` or ``'ptb-java'``.

    Returns:
        A line that says what is missing and how to get it; None if nothing is.
    """
    if shutil.which("java") is None:
        return f"{name} needs Java and there is no `java` on the PATH: {_GET_JAVA}"
    if name != "SPICE":
        return None
    library = _folder("spice") / "lib"
    jars = [f"{_CORENLP}.jar", f"{_CORENLP}-models.jar"]
    absent = [jar for jar in jars if not (library / jar).is_file()]
    if not absent:
        return None
    return f"SPICE needs {' and '.join(absent)} of {_CORENLP_ZIP}: put them into {library}"


def tokenize_with_java(captions: Sequence[str]) -> list[list[str]]:
    """Tokenize as COCO's server does: Stanford CoreNLP 3.4.1, punctuation dropped.

    Args:
        captions: Any sentences.

    Returns:
        The tokens of each.

    Raises:
        RuntimeError: If the program fails.
    """
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS, STANFORD_CORENLP_3_4_1_JAR

    if not captions:
        return []
    jar = _folder("tokenizer") / STANFORD_CORENLP_3_4_1_JAR
    command = ["java", "-Dfile.encoding=UTF-8", "-cp", str(jar)]
    command += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "captions.txt"
        # Whatever ends a line in a caption would put the ones after it in wrong places.
        lines = (" ".join(caption.splitlines()) for caption in captions)
        source.write_text("\n".join(lines) + "\n", encoding="utf-8")
        found = _run([*command, str(source)]).split("\n")
    if len(found) < len(captions):
        raise RuntimeError(f"the tokenizer gave {len(found)} lines for {len(captions)} captions")
    dropped = set(PUNCTUATIONS)
    return [
        [token for token in line.rstrip().split(" ") if token and token not in dropped]
        for line in found[: len(captions)]
    ]


def meteor(
    references: Sequence[Sequence[str]], captions: Sequence[str]
) -> tuple[float, list[float]]:
    """METEOR 1.5 (Denkowski and Lavie 2014) of the corpus and of each image, from 0 to 1.

    Args:
        references: Tokenized references of each image, words separated by single spaces.
        captions: The tokenized caption of each image.
    """
    from pycocoevalcap.meteor.meteor import Meteor

    program = Meteor()
    try:
        gts = dict(enumerate(map(list, references)))
        return program.compute_score(gts, {i: [text] for i, text in enumerate(captions)})
    finally:
        # Where it fails it keeps its lock, for which its own __del__ would wait for ever.
        if program.lock.locked():
            program.lock.release()
            with contextlib.suppress(OSError):
                program.meteor_p.stdin.close()


def spice(
    references: Sequence[Sequence[str]], captions: Sequence[str]
) -> tuple[float, list[float]]:
    """SPICE 1.0 (Anderson et al. 2016): F-score of scene graphs, mean and each image, from 0 to 1.

    Args:
        references: As for :func:`meteor`.
        captions: As for :func:`meteor`.

    Raises:
        RuntimeError: If the program fails.
    """
    pairs = zip(references, captions, strict=True)
    rows = [{"image_id": i, "test": c, "refs": list(r)} for i, (r, c) in enumerate(pairs)]
    with tempfile.TemporaryDirectory() as folder:
        source, out, cache = (Path(folder) / name for name in ("in.json", "out.json", "cache"))
        source.write_text(json.dumps(rows), encoding="utf-8")
        cache.mkdir()
        command = ["java", "-Xmx8G", "-jar", "spice-1.0.jar", str(source), "-cache", str(cache)]
        _run([*command, "-out", str(out), "-subset", "-silent"], cwd=_folder("spice"))
        found: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))
    by_image = {row["image_id"]: float(row["scores"]["All"]["f"]) for row in found}
    each = [by_image[i] for i in range(len(rows))]
    return sum(each) / len(each), each


def _folder(part: str) -> Path:
    return Path(next(iter(pycocoevalcap.__path__))) / part


def _run(command: list[str], cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True)
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-3:]
        raise RuntimeError(f"{' '.join(command[:4])} ... failed: {' | '.join(last)}")
    return done.stdout.decode("utf-8")
