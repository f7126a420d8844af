import logging
import re
import subprocess
import sys
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODEL_WRAPPERS, VISBACKENDS
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from mmengine.visualization.vis_backend import BaseVisBackend
from PIL import Image

from pcm_plugin.structures import DataSample
from pcm_plugin.visualization import MixupVisualizationHook, concepts_of_sample, mixup_hook

runs = count()
HOOK = "pcm_plugin.MixupVisualizationHook"
RED = (200, 30, 10)
GRAY = (154, 157, 163)


@VISBACKENDS.register_module()
class RecordingVisBackend(BaseVisBackend):
    """Backend that records all images in one list."""

    images = []

    def _init_env(self):
        pass

    @property
    def experiment(self):
        return self

    def add_config(self, config, **kwargs):
        pass

    def add_image(self, name, image, step=0, **kwargs):
        self.images.append((name, image, step))


@VISBACKENDS.register_module()
class BrokenVisBackend(RecordingVisBackend):
    def add_image(self, name, image, step=0, **kwargs):
        raise ConnectionError("no network")


@pytest.fixture
def build(tmp_path, tiny_settings):
    """Return a function that builds a runner with one iteration per epoch."""

    def build(backend="RecordingVisBackend", train_cfg=None, hook=None, **settings):
        RecordingVisBackend.images.clear()
        cfg = Config.fromfile("configs/pcm_coco.py")
        cfg.merge_from_dict(
            {
                **tiny_settings,
                "train_dataloader.dataset.max_pairs": 4,
                "model.decoding.beam_size": 1,
                "model.decoding.max_len": 6,
                "val_dataloader.batch_size": 2,
                "test_dataloader.batch_size": 2,
                "default_hooks.checkpoint.interval": 100,
                "default_hooks.checkpoint.save_best": None,
                **settings,
            }
        )
        if train_cfg is not None:
            cfg.train_cfg = train_cfg
        cfg.custom_hooks = [dict(type=HOOK, **(hook or {}))]
        cfg.visualizer = dict(type="Visualizer", vis_backends=[dict(type=backend)])
        # Otherwise runners that start in the same second share their visualizer.
        cfg.work_dir = str(tmp_path / "run")
        cfg.experiment_name = f"{tmp_path}/{next(runs)}"
        return Runner.from_cfg(cfg)

    return build


def recorded():
    return [(name, step) for name, _, step in RecordingVisBackend.images]


def said(tmp_path, word):
    """Return the log lines of the hook."""
    lines = [line for log in tmp_path.glob("run/*/*.log") for line in log.open()]
    return [line for line in lines if f" - {word} - " in line and "MixupVisualizationHook" in line]


def share(picture, color):
    """Return the share of pixels of a card's image that have about this color."""
    pixels = np.asarray(picture)[30:310, 30:310].astype(int)
    return (np.abs(pixels - np.array(color)).max(-1) <= 2).mean()


def a_model(words=("dog", "cat")):
    model = torch.nn.Module()
    model.neck = torch.nn.Module()
    model.neck.concept_words = list(words)
    return model


def a_sample(image_id="1", patches=4):
    sample = DataSample(metainfo={"image_id": image_id})
    sample.pred_caption = "a dog"
    sample.pred_concept_ids, sample.pred_concept_probs = torch.tensor([0]), torch.tensor([0.9])
    sample.pred_affinity = torch.arange(float(patches))[:, None]
    sample.pred_selected_patches = torch.tensor([patches - 1])
    return sample


def validate(tmp_path, samples, model=None, backend="LocalVisBackend", hook=None):
    """Run only the hook on one batch; return the files that it wrote."""
    hook = hook or MixupVisualizationHook()
    runner = SimpleNamespace(
        model=model or a_model(),
        visualizer=Visualizer(vis_backends=[dict(type=backend)], save_dir=str(tmp_path)),
        logger=logging.getLogger("hook"),
    )
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 0, None, samples)
    return sorted((tmp_path / "vis_data" / "vis_image").glob("*"))


def test_training_writes_pictures_in_their_colors(build, tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (90, 60), RED).save(tmp_path / "images" / "0.png")
    (tmp_path / "images" / "2.png").write_text("no image")
    settings = {"val_dataloader.dataset.data_prefix": str(tmp_path / "images")}
    hook = dict(interval=2)
    build("LocalVisBackend", hook=hook, **settings, **{"train_cfg.max_epochs": 4}).train()
    (folder,) = (tmp_path / "run").glob("*/vis_data/vis_image")
    names = {path.name for path in folder.iterdir()}
    assert names == {f"val_mix_image{i}_{epoch}.png" for i in range(3) for epoch in (2, 4)}
    pictures = {name: Image.open(folder / name) for name in names}
    for epoch in (2, 4):
        assert share(pictures[f"val_mix_image0_{epoch}.png"], RED) > 0.5
        for missing in ("image1", "image2"):
            assert share(pictures[f"val_mix_{missing}_{epoch}.png"], GRAY) > 0.5
    (line,) = said(tmp_path, "WARNING")
    assert f"no image at {tmp_path / 'images' / '1.png'}" in line
    assert "val_dataloader.dataset.data_prefix=FOLDER" in line
    assert not said(tmp_path, "ERROR")


def test_backends_get_the_first_images_with_the_epoch(build, tmp_path):
    settings = {"train_cfg.max_epochs": 2, "val_dataloader.dataset.data_prefix": None}
    build(hook=dict(num_images=1), **settings).train()
    assert recorded() == [("val_mix_image0", 1), ("val_mix_image0", 2)]
    for _, picture, _ in RecordingVisBackend.images:
        assert (picture.dtype, picture.ndim, picture.shape[2]) == (np.uint8, 3, 3)
    (line,) = said(tmp_path, "WARNING")
    assert "have no `img_path`" in line


def test_an_iteration_based_loop_counts_iterations(build):
    loop = dict(type="IterBasedTrainLoop", max_iters=8, val_interval=2)
    # MMEngine's loop sleeps each time its data loader restarts.
    settings = {"train_dataloader.batch_size": 1, "train_dataloader.dataset.max_pairs": None}
    build(train_cfg=loop, hook=dict(num_images=1, interval=2), **settings).train()
    assert recorded() == [("val_mix_image0", 4), ("val_mix_image0", 8)]


def test_tests_are_drawn_without_training_data(build, tmp_path):
    runner = build(**{"train_dataloader.dataset.store": "nowhere"}, hook=dict(interval=5))
    runner.test()
    assert recorded() == [(f"test_mix_image{i}", 0) for i in range(3)]
    assert "test_dataloader.dataset.data_prefix=FOLDER" in said(tmp_path, "WARNING")[0]
    runner.val()
    assert recorded()[3:] == [(f"val_mix_image{i}", 0) for i in range(3)]


def test_concepts_without_patches_have_no_maps(tmp_path):
    image, hook = Image.new("RGB", (64, 64), RED), MixupVisualizationHook()
    sample = a_sample()
    mixed = hook.draw(image, sample, a_model())
    del sample.pred_affinity, sample.pred_selected_patches
    card = hook.draw(image, sample, a_model())
    assert card.height < mixed.height
    assert concepts_of_sample(sample, ["dog", "cat"]) == ([("dog", pytest.approx(0.9))], [])
    (path,) = validate(tmp_path, [sample])
    assert Image.open(path).size == card.size


@pytest.mark.parametrize("text_only", [False, True])
def test_a_model_without_mixup_has_no_maps(build, tmp_path, text_only):
    build().val()
    with_maps = RecordingVisBackend.images[0][1]
    settings = {"model.neck.selection": "none"}
    if text_only:
        neck = dict(type="pcm_plugin.GlobalPrefix", clip_dim=8, embed_dims=16)
        settings = {"model.neck": dict(_delete_=True, **neck)}
    build(**settings).val()
    card = RecordingVisBackend.images[0][1]
    assert card.shape[1] == with_maps.shape[1]
    assert card.shape[0] < with_maps.shape[0] - 136
    assert not said(tmp_path, "ERROR")


def test_errors_do_not_stop_the_training(build, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no ink")

    monkeypatch.setattr(mixup_hook, "contact_sheet", fail)
    runner = build(**{"train_cfg.max_epochs": 2})
    runner.train()
    assert runner.epoch == 2
    assert recorded() == []
    (line,) = said(tmp_path, "ERROR")
    assert "MixupVisualizationHook: image image0 of val" in line
    assert "RuntimeError: no ink" in line


def test_a_failing_backend_is_logged_once(tmp_path, caplog):
    assert validate(tmp_path, [a_sample(), a_sample()], backend="BrokenVisBackend") == []
    (record,) = (r for r in caplog.records if r.levelname == "ERROR")
    assert "MixupVisualizationHook" in record.message
    assert "no network" in record.message


def test_all_ids_give_valid_file_names(tmp_path):
    ids = ["a/b", "a_b", "../../up", "å b", "x" * 300, "", "C:\\dog?.png", 7]
    files = validate(tmp_path, [a_sample(image_id) for image_id in ids])
    assert len(files) == len(ids)
    assert {"val_mix_a_b_0.png", "val_mix_7_0.png"} < {path.name for path in files}
    for path in files:
        assert re.fullmatch(r"[A-Za-z0-9_.-]{1,120}", path.name)
        assert Image.open(path).size[0] == 756


def test_wrapped_models_are_supported(tmp_path):
    @MODEL_WRAPPERS.register_module(force=True)
    class Wrapper(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    assert len(validate(tmp_path, [a_sample()], Wrapper(a_model()))) == 1


def test_patches_that_do_not_form_a_square_need_a_grid(tmp_path, caplog):
    assert validate(tmp_path, [a_sample(patches=6)]) == []
    assert "`pred_affinity` has 6 patches, which do not form a square: set `grid`" in caplog.text
    hook = MixupVisualizationHook(grid=[2, 3])
    assert len(validate(tmp_path, [a_sample(patches=6)], hook=hook)) == 1
    # The grid of the backbone has precedence over a square.
    model = a_model()
    model.backbone = torch.nn.Module()
    model.backbone.grid = (1, 4)
    drawn = MixupVisualizationHook().draw(Image.new("RGB", (8, 8)), a_sample(), model)
    square = MixupVisualizationHook().draw(Image.new("RGB", (8, 8)), a_sample(), a_model())
    assert (np.asarray(drawn) != np.asarray(square)).any()


def test_a_model_without_concept_words_is_logged(tmp_path, caplog):
    assert validate(tmp_path, [a_sample()], torch.nn.Module()) == []
    assert "the model must have `neck.concept_words`" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(num_images=0), "`num_images` must be an integer of at least 1, got 0"),
        (dict(num_images=True), "`num_images` must be .*, got True"),
        (dict(interval=1.5), "`interval` must be an integer of at least 1, got 1.5"),
        (dict(grid=7), r"`grid` must be \(rows, columns\) .*, got 7"),
        (dict(grid=(7, 0)), r"`grid` must be .*, got \(7, 0\)"),
        (dict(font="none.ttf"), "`font` must be a TrueType file, got 'none.ttf'"),
    ],
)
def test_invalid_arguments_are_rejected(wrong, message):
    with pytest.raises(ValueError, match=message):
        MixupVisualizationHook(**wrong)


def test_the_hook_is_found_by_its_prefix_without_imports():
    code = f"from mmengine.registry import HOOKS; print(HOOKS.build(dict(type='{HOOK}')).interval)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split()[-1:] == ["1"], done.stderr
