"""Java programs of COCO's evaluation: METEOR, SPICE and the original PTB tokenizer.

pycocoevalcap contains the programs of METEOR and the tokenizer. SPICE needs files that pip cannot
install. Files are only written in temporary folders.
"""

import contextlib
import json
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pycocoevalcap

_CORENLP = "stanford-corenlp-3.6.0"
_CORENLP_ZIP = "stanford-corenlp-full-2015-12-09.zip"
_CORENLP_URL = f"http://nlp.stanford.edu/software/{_CORENLP_ZIP}"
_GET_JAVA = "install a Java runtime (Debian: apt install default-jre-headless)"


def missing_requirement(name: str) -> str | None:
    """Return what a Java program needs and this environment does not have.

    Args:
        name: ``'METEOR'``, ``'SPICE'`` or ``'ptb-java'``.

    Returns:
        A line with the missing requirement and how to install it; None if nothing is missing.
    """
    if shutil.which("java") is None:
        return f"{name} needs Java, but `java` is not on the PATH: {_GET_JAVA}"
    if name != "SPICE":
        return None
    library = _folder("spice") / "lib"
    jars = [f"{_CORENLP}.jar", f"{_CORENLP}-models.jar"]
    absent = [jar for jar in jars if not (library / jar).is_file()]
    if not absent:
        return None
    unzip = ["unzip", "-j", _CORENLP_ZIP, *(f"*/{jar}" for jar in absent), "-d", str(library)]
    command = f"curl -LO {_CORENLP_URL} && {shlex.join(unzip)}"
    return f"SPICE needs {' and '.join(absent)}: {command}"


def tokenize_with_java(captions: Sequence[str]) -> list[list[str]]:
    """Tokenize with Stanford CoreNLP 3.4.1 and drop punctuation, as COCO's server does.

    Args:
        captions: Captions.

    Returns:
        Tokens of each caption.

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
        # A line break inside a caption would shift all captions after it.
        text = "".join(" ".join(caption.splitlines()) + "\n" for caption in captions)
        source.write_text(text, encoding="utf-8")
        lines = _run([*command, str(source)]).split("\n")
    if len(lines) < len(captions):
        raise RuntimeError(f"the tokenizer wrote {len(lines)} lines for {len(captions)} captions")
    dropped = set(PUNCTUATIONS)
    return [
        [token for token in line.rstrip().split(" ") if token and token not in dropped]
        for line in lines[: len(captions)]
    ]


def meteor(
    references: Sequence[Sequence[str]], captions: Sequence[str]
) -> tuple[float, list[float]]:
    """Compute METEOR 1.5 (Denkowski and Lavie 2014) of the corpus and of each image, from 0 to 1.

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
        # After a failure it keeps its lock, and its __del__ would wait for the lock forever.
        if program.lock.locked():
            program.lock.release()
            with contextlib.suppress(OSError):
                program.meteor_p.stdin.close()


def spice(
    references: Sequence[Sequence[str]], captions: Sequence[str]
) -> tuple[float, list[float]]:
    """Compute SPICE 1.0 (Anderson et al. 2016), mean and per image, from 0 to 1.

    Args:
        references: See :func:`meteor`.
        captions: See :func:`meteor`.

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
        scored: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))
    by_image = {row["image_id"]: float(row["scores"]["All"]["f"]) for row in scored}
    each = [by_image[i] for i in range(len(rows))]
    return sum(each) / len(each), each


def _folder(part: str) -> Path:
    return Path(next(iter(pycocoevalcap.__path__))) / part


def _run(command: list[str], cwd: Path | None = None) -> str:
    result = subprocess.run(command, cwd=cwd, capture_output=True)
    if result.returncode:
        last = result.stderr.decode(errors="replace").strip().splitlines()[-3:]
        raise RuntimeError(f"{' '.join(command[:4])} ... failed: {' | '.join(last)}")
    return result.stdout.decode("utf-8")
