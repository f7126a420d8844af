import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pcm_plugin.formats.concept_set import load_concepts, save_concepts
from pcm_plugin.models.released_checkpoint import convert_official, official_names, read_official
from tests.builders import build_store
from tests.test_tools.commands import run

FOLDER = "tests/data/parity/b32_small"
TABLE = "token_embed.embeddings_pos.pe"


@pytest.fixture
def official():
    return load_file(f"{FOLDER}/official_state_dict.safetensors")


class Harmful:
    def __reduce__(self):
        return (open, ("executed", "w"))


@pytest.mark.parametrize("wrap", ["plain", "trainer", "distributed", "safetensors"])
def test_reads_every_form_of_a_released_checkpoint(official, tmp_path, wrap):
    path = tmp_path / "model.pth"
    if wrap == "safetensors":
        path = path.with_suffix(".safetensors")
        save_file(official, path)
    elif wrap == "trainer":
        torch.save({"model": official, "trainer": {"iteration": 7}, "iteration": 7}, path)
    elif wrap == "distributed":
        torch.save({"model": {f"module.{k}": v for k, v in official.items()}}, path)
    else:
        torch.save(official, path)
    read = read_official(path)
    assert set(read) == set(official)
    assert all(torch.equal(read[key], official[key]) for key in official)


def test_pickled_code_is_not_run(official, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": official, "trainer": Harmful()}, "harmful.pth")
    with pytest.raises(ValueError, match=r"harmful\.pth has objects other than tensors"):
        read_official("harmful.pth")
    assert not (tmp_path / "executed").exists()


def test_files_that_are_not_checkpoints_raise_an_error(tmp_path):
    (tmp_path / "text.pth").write_text("not a checkpoint")
    torch.save({"model": {"epoch": 3}}, tmp_path / "numbers.pth")
    with pytest.raises(FileNotFoundError, match=r"nothing\.pth"):
        read_official(tmp_path / "nothing.pth")
    with pytest.raises(ValueError, match=r"text\.pth"):
        read_official(tmp_path / "text.pth")
    with pytest.raises(ValueError, match="only tensors, got others at: epoch"):
        read_official(tmp_path / "numbers.pth")


def test_the_mapping_of_keys_is_a_bijection(official):
    names = official_names(3, 3)
    assert set(names) == set(official) - {TABLE}
    assert len(set(names.values())) == len(names)


def test_the_position_embeddings_may_be_missing(official):
    with_table, _ = convert_official(official)
    del official[TABLE]
    without, _ = convert_official(official)
    assert set(without) == set(with_table)


def test_one_message_lists_all_problems(official):
    official["visual_embed.mystery"] = torch.zeros(1)
    del official["decoder.g_layers.1.x_att.self.key.bias"]
    official["predictor.logits.weight"] = official["predictor.logits.weight"][:, :-1]
    official["visual_embed.embeddings_pos"] = official["visual_embed.embeddings_pos"][0]
    official[TABLE] = official[TABLE].flip(1)
    with pytest.raises(ValueError, match="not a released") as error:
        convert_official(official)
    assert sorted(line.strip() for line in str(error.value).splitlines()[1:]) == [
        "mis-shaped key predictor.logits.weight: (200, 63) instead of (200, 64)",
        "mis-shaped key visual_embed.embeddings_pos: (50, 64) instead of (1, 1 + patches, 64)",
        "missing key decoder.g_layers.1.x_att.self.key.bias",
        "token_embed.embeddings_pos.pe has other sinusoids than the decoder",
        "unknown key visual_embed.mystery",
    ]


def test_a_missing_layer_is_reported(official):
    moved = {k.replace("encoder.layers.2.", "encoder.layers.9."): v for k, v in official.items()}
    with pytest.raises(ValueError, match="unknown key") as error:
        convert_official(moved)
    assert "unknown key encoder.layers.9.output.dense.weight" in str(error.value)
    assert "missing key encoder.layers.2.output.dense.weight" in str(error.value)


def test_the_command_converts_and_checks_the_vocabulary(official, tmp_path):
    src, dst = tmp_path / "released.pth", tmp_path / "ours.safetensors"
    torch.save({"model": official}, src)
    tool = "convert-pcmnet-checkpoint"
    result = run(tool, src, dst, "--vocabulary", f"{FOLDER}/vocabulary.txt", log=tmp_path / "log")
    assert result.code == 0, result.output
    assert "vocab_size = 200" in result.output
    with safe_open(dst, "pt") as file:
        metadata = file.metadata()
    assert metadata["source"] == "released.pth"
    assert json.loads(metadata["sizes"])["num_patches"] == 49
    expected, _ = convert_official(official)
    converted = load_file(dst)
    assert all(torch.equal(converted[key], expected[key]) for key in expected)

    (tmp_path / "short.txt").write_text("one\ntwo\n")
    result = run(tool, src, dst, "--vocabulary", tmp_path / "short.txt", log=tmp_path / "log")
    assert result.code == 1
    assert "must have 200 words" in result.output
    assert f"got 3 in {tmp_path / 'short.txt'}" in result.output


def test_a_converted_checkpoint_gives_the_captions_of_the_released_code(official, tmp_path):
    """Run the commands from the released files to captions."""
    meta = json.loads(Path(FOLDER, "meta.json").read_text())
    inputs = load_file(f"{FOLDER}/inputs.safetensors")
    torch.save({"model": official}, tmp_path / "released.pth")
    embeddings = inputs["concept_embeddings"]
    words = [f"concept{i}" for i in range(len(embeddings))]
    save_concepts(tmp_path / "c.safetensors", words, embeddings)
    sizes = dict(num_patches=49, patch_dim=meta["patch_dim"], clip_dim=meta["clip_dim"])
    references = [[caption] for caption in meta["beam_captions"]]
    build_store(tmp_path / "store", references, **sizes, dtype=torch.float32, feats=inputs)

    vocabulary, weights = f"{FOLDER}/vocabulary.txt", tmp_path / "ours.safetensors"
    convert = (tmp_path / "released.pth", weights, "--vocabulary", vocabulary)
    settings = {
        "model.vocabulary": vocabulary,
        "model.neck.concepts": tmp_path / "c.safetensors",
        **{f"model.neck.{key}": value for key, value in sizes.items()},
        **{f"model.{part}.embed_dims": meta["hidden"] for part in ("neck", "encoder", "decoder")},
        **{f"model.{part}.num_heads": meta["heads"] for part in ("encoder", "decoder")},
        **{f"model.{part}.ffn_dims": meta["ffn"] for part in ("encoder", "decoder")},
        "test_dataloader.dataset.store": tmp_path / "store",
        "test_dataloader.num_workers": 0,
        "test_dataloader.persistent_workers": False,
        "test_evaluator.outfile": tmp_path / "captions.json",
    }
    options = [f"{key}={value}" for key, value in settings.items()]
    test = ("configs/pcm_coco.py", weights, "--work-dir", tmp_path, "--cfg-options", *options)
    for tool, args in (("convert-pcmnet-checkpoint", convert), ("test", test)):
        result = run(tool, *args, log=tmp_path / "log")
        assert result.code == 0, result.output
    said = json.loads((tmp_path / "captions.json").read_text())
    assert [row["caption"] for row in said] == [c.rstrip(" .") for c in meta["beam_captions"]]


def test_import_concepts_command(tmp_path):
    embeddings = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).half()
    (tmp_path / "c.pickle").write_bytes(pickle.dumps((["dog", "cat", "ball"], embeddings)))
    dst = tmp_path / "c.safetensors"
    result = run(
        "import-concepts", tmp_path / "c.pickle", dst, "--model", "M", log=tmp_path / "log"
    )
    assert result.code == 0, result.output
    concepts = load_concepts(dst)
    assert concepts.words == ["dog", "cat", "ball"]
    assert concepts.model == "M"
    direction = torch.nn.functional.normalize(embeddings.float(), dim=1)
    torch.testing.assert_close(concepts.embeddings, direction)
