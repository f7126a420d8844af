"""Concepts found by a tagger of the user."""

import pytest

from pcm_plugin.errors import UserError
from pcm_plugin.formats.word_list import read_word_list
from pcm_plugin.synthesis.concepts.nouns import Noun
from pcm_plugin.synthesis.concepts.tagger import find_concepts, tagger_identity
from tests.test_tools.commands import run

CAPTIONS = ["Der Hund läuft im Park", "Zwei Hunde und eine Katze", "Die Katze schläft", "schön"]
MODULE = """
LEMMAS = {"Hunde": "Hund"}
calls = []

def find_nouns(captions):
    calls.append(len(captions))
    return [[LEMMAS.get(w, w) for w in c.split()[1:] if w[0].isupper()] for c in captions]

def too_few(captions):
    return []

def of_texts(captions):
    return [" ".join(c.split()) for c in captions]

def failing(captions):
    return captions["x"]

number = 1
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "german_nouns.py").write_text(MODULE)
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nouns_of_a_tagger_are_counted(folder):
    tagger = "german_nouns:find_nouns"
    found = find_concepts(CAPTIONS, tagger, min_count=2)
    assert found == [Noun("Hund", 2), Noun("Katze", 2)]
    assert {noun.word: noun.count for noun in find_concepts(CAPTIONS, tagger, 1)} == {
        "Hund": 2,
        "Katze": 2,
        "Park": 1,
    }
    assert [n.word for n in find_concepts(CAPTIONS, tagger, 1, 2, ["Hund"])] == ["Katze", "Park"]
    find_concepts(CAPTIONS * 600, tagger)
    import german_nouns

    assert german_nouns.calls[-3:] == [1000, 1000, 400]


@pytest.mark.parametrize(
    ("tagger", "message"),
    [
        ("german_nouns", r"must be MODULE:FUNCTION, .* got `german_nouns`"),
        ("german_nouns:nothing", "german_nouns has no function nothing"),
        ("german_nouns:number", "german_nouns has no function number"),
        ("missing_module:f", "missing_module cannot be imported"),
        ("german_nouns:too_few", "must return a list of texts for each of 4 captions, got 0"),
        ("german_nouns:of_texts", "got 4 results such as"),
        ("german_nouns:failing", "failed: TypeError"),
    ],
)
def test_wrong_taggers(folder, tagger, message):
    with pytest.raises(UserError, match=message):
        find_concepts(CAPTIONS, tagger, 1)


def test_wrong_settings(folder):
    with pytest.raises(UserError, match=r"none of 3 nouns occurs min_count=5 times.*german_nouns"):
        find_concepts(CAPTIONS, "german_nouns:find_nouns")
    with pytest.raises(UserError, match="phrases False with a tagger"):
        find_concepts(CAPTIONS, "german_nouns:find_nouns", 1, phrases=True)


def test_the_identity_of_a_tagger_depends_on_its_code(folder):
    (folder / "changing_nouns.py").write_text(MODULE)
    before = tagger_identity("changing_nouns:find_nouns")
    assert before.startswith("changing_nouns:find_nouns sha256 ")
    (folder / "changing_nouns.py").write_text(MODULE + "\n")
    assert tagger_identity("changing_nouns:find_nouns") != before


def test_the_command(folder):
    words = ["--captions", "captions.txt", "--min-count", 1, "--out-words", "words.txt"]
    tagger = ["--tagger", "german_nouns:find_nouns"]
    log = folder / "log"
    result = run("build-concepts", *words, *tagger, log=log, launcher=False)
    assert result.code == 0, result.output
    assert read_word_list(folder / "words.txt") == ["Hund", "Katze", "Park"]
    result = run("build-concepts", "words.txt", *words[4:], *tagger, log=log, launcher=False)
    assert (result.code, "--tagger needs --captions" in result.output) == (2, True)
