"""Identical input gives byte-identical files."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.writers import WRITERS, prepare

# Functions that write files: names that are unique, and names that count only as calls.
WRITING = {
    *(
        "atomic_write",
        "write_bytes",
        "write_json",
        "write_json_list",
        "write_tensors",
        "write_text",
    ),
    *("serialize_tensors", "save_file", "savez", "savez_compressed", "save_pretrained"),
    *("savefig", "save_sheet", "to_file", "copy_file", "copyfile", "copyfileobj"),
    *("write_caption_shard", "write_feature_shard", "write_image_shard", "write_word_list"),
}
CALLS = {"save", "dump"}
# For each module that writes files: the function of tests/writers.py that runs it, or the reason
# why there is none.
TOY_ASSETS = "creates the weights of the package, once"
RUN = "record of a training or test, by write_json"
COVERED = {
    "pcm_plugin/apis/journal.py": "deleted at the end, see tests/test_tools/test_caption.py",
    "pcm_plugin/formats/clip_head.py": "dataset",
    "pcm_plugin/formats/concept_set.py": "corpus_files",
    "pcm_plugin/formats/corrections.py": "test_formats/test_corrections.py",
    "pcm_plugin/formats/coco.py": "corpus_files",
    "pcm_plugin/formats/atomic_io.py": "captions",
    "pcm_plugin/formats/feature_shard.py": "dataset",
    "pcm_plugin/formats/image_shards.py": "dataset",
    "pcm_plugin/formats/pair_selection.py": "dataset",
    "pcm_plugin/formats/refined_features.py": "dataset",
    "pcm_plugin/formats/records.py": "comparison",
    "pcm_plugin/formats/shards.py": "dataset",
    "pcm_plugin/formats/subword_vocabulary.py": "corpus_files",
    "pcm_plugin/formats/tensor_file.py": "tensors",
    "pcm_plugin/formats/vocabulary.py": "corpus_files",
    "pcm_plugin/formats/word_list.py": "corpus_files",
    "pcm_plugin/engine/checkpoint_hook.py": "contain times, see docs/reproducible_files.md",
    "pcm_plugin/engine/work_folder.py": RUN,
    "pcm_plugin/evaluation/caption_metric.py": "captions",
    "pcm_plugin/evaluation/java.py": "temporary files of Java programs",
    "pcm_plugin/models/backbones/clip_weights.py": "as captioner; tests/test_models",
    "pcm_plugin/models/captioner_file.py": "captioner",
    "pcm_plugin/models/captioner_settings.py": "a captioner file, as of captioner",
    "pcm_plugin/formats/captions/lines.py": "corpus_files",
    "pcm_plugin/formats/caption_results.py": "captions; tests/test_tools/test_caption_formats.py",
    "pcm_plugin/synthesis/refine/features.py": "dataset",
    "pcm_plugin/synthesis/pipeline/corpus.py": "dataset",
    "pcm_plugin/synthesis/extract/encode_captions.py": "captions_alone",
    "pcm_plugin/synthesis/extract/extract_features.py": "dataset",
    "pcm_plugin/synthesis/pipeline/dataset_config.py": "dataset",
    "pcm_plugin/synthesis/pipeline/exported_pairs.py": "test_synthesis/test_exported_pairs.py",
    "pcm_plugin/synthesis/pipeline/text_configs.py": "captions_alone",
    "pcm_plugin/synthesis/pipeline/validation.py": "test_synthesis/test_validation_split.py",
    "pcm_plugin/synthesis/generate/generate_images.py": "dataset",
    "pcm_plugin/synthesis/released/import_images.py": "imported_images",
    "pcm_plugin/synthesis/pipeline/language_model.py": "test_synthesis/test_language_model.py",
    "pcm_plugin/synthesis/refine/pairs.py": "dataset",
    "pcm_plugin/synthesis/released/features.py": "a feature store, as of dataset",
    "pcm_plugin/synthesis/pipeline/stores.py": "dataset",
    "pcm_plugin/toyworld/prior/clip.py": TOY_ASSETS,
    "pcm_plugin/toyworld/prior/diffusion.py": TOY_ASSETS,
    "pcm_plugin/toyworld/prior/tokenizer.py": TOY_ASSETS,
    "pcm_plugin/toyworld/prior/training.py": TOY_ASSETS,
    "pcm_plugin/toyworld/prior/web.py": TOY_ASSETS,
    "pcm_plugin/toyworld/world.py": "toy_world",
    "pcm_plugin/visualization/charts.py": "report",
    "pcm_plugin/visualization/page.py": "report",
    "pcm_plugin/visualization/sheet.py": "captions",
    "pcm_plugin/commands/build_concepts.py": "corpus_files",
    "pcm_plugin/commands/build_vocabulary.py": "corpus_files",
    "pcm_plugin/commands/captioning.py": "captions",
    "pcm_plugin/commands/comparing.py": "comparison",
    "pcm_plugin/commands/comparison_tables.py": "comparison",
    "pcm_plugin/commands/convert_captions.py": "captions",
    "pcm_plugin/commands/convert_pcmnet_checkpoint.py": "captioner",
    "pcm_plugin/commands/paper_runs.py": "log of the runs",
    "pcm_plugin/commands/paper_table.py": RUN,
    "pcm_plugin/commands/photo_store.py": "by write_tensors; test_tools/test_photo_report.py",
    "pcm_plugin/commands/published.py": "docs; tests/test_docs/test_published.py",
    "pcm_plugin/commands/report.py": "report",
    "pcm_plugin/commands/score.py": "captions",
    "pcm_plugin/commands/store.py": "dataset",
    "pcm_plugin/commands/testing.py": RUN,
    "pcm_plugin/commands/web_corrections.py": "by CorrectionFile",
    "pcm_plugin/commands/web_examples.py": "temporary copies of images",
    "pcm_plugin/commands/web_folder.py": "downloads, by write_results; small copies of images",
    "pcm_plugin/commands/toyworld/arm_inputs.py": "head of a control experiment, by write_tensors",
    "pcm_plugin/commands/toyworld/conditions.py": "figure of this repository",
    "pcm_plugin/commands/toyworld/demo.py": "captions",
    "pcm_plugin/commands/toyworld/steps.py": "what a command prints",
    "pcm_plugin/commands/toyworld/records.py": "scores of this repository",
    "pcm_plugin/commands/toyworld/measure_prior.py": TOY_ASSETS,
    "pcm_plugin/commands/toyworld/report.py": "page of this repository with measured times",
    "pcm_plugin/commands/toyworld/results.py": "log of the runs",
    "tools/dev/environment_results.py": "page of this repository with measured times",
}


def writes(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if name_of(node) in WRITING:
            return True
        if not isinstance(node, ast.Call):
            continue
        words = [*node.args, *(keyword.value for keyword in node.keywords)]
        modes = [str(word.value) for word in words if isinstance(word, ast.Constant)]
        opens = name_of(node.func) == "open" and any(m[:1] in ("w", "a", "x") for m in modes)
        if opens or name_of(node.func) in CALLS:
            return True
    return False


def name_of(node):
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def test_the_list_of_writers_is_complete():
    """Each module that writes files is run by tests/writers.py, or listed with a reason."""
    modules = [*Path("pcm_plugin").rglob("*.py"), *Path("tools").rglob("*.py")]
    found = {path.as_posix() for path in modules if writes(path)}
    assert sorted(found - COVERED.keys()) == []
    assert sorted(COVERED.keys() - found) == []


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return the folders of two processes with different hash seeds, times and time zones."""
    inputs = tmp_path_factory.mktemp("inputs")
    prepare(inputs)
    folders = []
    processes = []
    for seed, zone in (("1", "UTC"), ("2", "Asia/Tokyo")):
        folder = tmp_path_factory.mktemp(f"seed{seed}")
        env = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "OMP_NUM_THREADS": "1"}
        with open(folder.with_suffix(".log"), "wb") as log:
            command = [sys.executable, "-m", "tests.writers", str(folder), str(inputs)]
            processes.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
        folders.append(folder)
    for process, folder in zip(processes, folders, strict=True):
        assert process.wait(300) == 0, folder.with_suffix(".log").read_text()
    return folders


@pytest.mark.parametrize("name", WRITERS)
def test_two_processes_write_the_same_bytes(folders, name):
    first, second = (contents(folder / name) for folder in folders)
    assert first
    assert first.keys() == second.keys()
    assert [file for file, data in first.items() if data != second[file]] == []
