import pickle

import pytest
import torch

from pcm_plugin.synthesis.released.concepts import read_released_concepts

WORDS = ["dog", "cat", "ball"]
EMBEDDINGS = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).half()


class Harmful:
    def __reduce__(self):
        return (open, ("executed", "w"))


class Nested:
    """Hides a harmful pickle in the bytes that torch's own storage reader would unpickle."""

    def __reduce__(self):
        return (torch.storage._load_from_bytes, (pickle.dumps(Harmful()),))


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def read(content, protocol=4):
        (tmp_path / "c.pickle").write_bytes(pickle.dumps(content, protocol))
        return read_released_concepts("c.pickle")

    return read


@pytest.mark.parametrize("protocol", [4, 5])
def test_words_and_embeddings_are_read(read, protocol):
    words, embeddings = read((WORDS, EMBEDDINGS), protocol)
    assert words == WORDS
    assert embeddings.dtype == torch.float32
    assert torch.equal(embeddings, EMBEDDINGS.float())


@pytest.mark.parametrize("content", [Harmful(), (WORDS, Harmful()), (WORDS, Nested())])
def test_nothing_is_executed(read, content, tmp_path):
    with pytest.raises(ValueError, match=r"c\.pickle is not a released concept list"):
        read(content)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "content",
    [
        WORDS,
        (WORDS, EMBEDDINGS, None),
        (tuple(WORDS), EMBEDDINGS),
        ([b"dog", "cat", "ball"], EMBEDDINGS),
        (WORDS[:2], EMBEDDINGS),
        (WORDS, EMBEDDINGS.float()),
        (WORDS, EMBEDDINGS[:, 0]),
        (WORDS, EMBEDDINGS[:, :1].expand(3, 4)),
        (WORDS, torch.nn.Parameter(EMBEDDINGS)),
        (WORDS, EMBEDDINGS.numpy()),
    ],
)
def test_nothing_else_is_admitted(read, content):
    with pytest.raises(ValueError, match="is not a released concept list"):
        read(content)


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_released_concepts(tmp_path / "nowhere")
    (tmp_path / "broken").write_bytes(b"\x80\x04not a pickle")
    with pytest.raises(ValueError, match="broken is not a released concept list"):
        read_released_concepts(tmp_path / "broken")
