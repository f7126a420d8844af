"""Hook that draws captions and mixed patches of validation and test images."""

import hashlib
import re
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop, Runner
from PIL import Image, ImageFont

from pcm_plugin.errors import UserError
from pcm_plugin.formats.images.image_io import read_image
from pcm_plugin.registry import HOOKS
from pcm_plugin.structures import DataSample
from pcm_plugin.visualization.affinity import affinity_maps
from pcm_plugin.visualization.entry import SheetEntry, concepts_of_sample
from pcm_plugin.visualization.sheet import BACKGROUND, GAP, contact_sheet

_MAX_SIZE = (640, 640)
_MAX_ID_LENGTH = 80
_PLACEHOLDER_COLOR = "#9a9da3"


@runtime_checkable
class ConceptNeck(Protocol):
    """Neck of a captioner that retrieves concepts.

    Attributes:
        concept_words: Words of the concepts.
    """

    concept_words: list[str]


@runtime_checkable
class GridBackbone(Protocol):
    """Backbone of a captioner.

    Attributes:
        grid: Rows and columns of the patches.
    """

    grid: tuple[int, int]


@HOOKS.register_module()
class MixupVisualizationHook(Hook):
    """Draw captions, concepts and mixed patches of some images during validation and testing.

    Each picture is the card of an image (:func:`.contact_sheet`) above the affinity maps of its
    concepts (:func:`.affinity_maps`). It is passed to ``runner.visualizer`` as ``val_mix_ID`` or
    ``test_mix_ID``, with the id of the image, and thereby to all ``vis_backends``. MMEngine's
    default backend writes PNG files to ``vis_data/vis_image``. The step of a picture is the epoch,
    the iteration with an iteration-based loop, and 0 without training.

    The hook reads the fields that :meth:`.Captioner.predict` sets in data samples; the words of
    ``pred_concept_ids`` are the ``concept_words`` of the model's ``neck``. Only the card is
    drawn if the model does not mix patches. Image files are looked up in the ``data_prefix`` of
    the dataset; an image whose file is missing is replaced by a gray square. Errors never stop
    the run: the first one is logged.

    Args:
        num_images: Number of images to draw, the first ones of the split; with several processes
            those of the first process. Defaults to 8.
        interval: Draw at every ``interval``-th epoch with validation; with an iteration-based loop
            at every ``interval``-th validation. In an epoch-based loop it should be a multiple of
            ``val_interval``. Tests are always drawn. Defaults to 1.
        grid: Rows and columns of the patches. Defaults to None: the grid of the model's backbone,
            or a square.
        font: TrueType file, for scripts that Pillow's default font lacks. Defaults to None.

    Raises:
        UserError: If an argument is out of range.
    """

    def __init__(
        self,
        num_images: int = 8,
        interval: int = 1,
        grid: Sequence[int] | None = None,
        font: str | None = None,
    ) -> None:
        for name, value in (("num_images", num_images), ("interval", interval)):
            if not _is_count(value):
                raise UserError(f"`{name}` must be an integer of at least 1, got {value!r}")
        if grid is not None and not (
            isinstance(grid, Sequence) and len(grid) == 2 and all(map(_is_count, grid))
        ):
            raise UserError(f"`grid` must be (rows, columns) of the patches or None, got {grid!r}")
        if font is not None:
            _check_font(font)
        self.num_images = num_images
        self.interval = interval
        self.grid = None if grid is None else (grid[0], grid[1])
        self.font = font
        self._is_training = False
        self._num_seen = self._num_due = 0
        self._logged: set[str] = set()

    def before_train(self, runner: Runner) -> None:
        """Record that there is a training loop: ``runner.train_loop`` would build one."""
        self._is_training = True

    def before_val_epoch(self, runner: Runner) -> None:
        """Decide whether to draw this validation."""
        due = is_main_process() and self._validation_index(runner) % self.interval == 0
        self._num_seen, self._num_due = 0, self.num_images if due else 0

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[DataSample] | None = None,
    ) -> None:
        """Draw the first images of the split."""
        self._draw_batch(runner, outputs, "val")

    def before_test_epoch(self, runner: Runner) -> None:
        """Start with the first image."""
        self._num_seen, self._num_due = 0, self.num_images if is_main_process() else 0

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[DataSample] | None = None,
    ) -> None:
        """Draw the first images of the split."""
        self._draw_batch(runner, outputs, "test")

    def draw(
        self, image: Image.Image, sample: DataSample, model: torch.nn.Module, title: str = ""
    ) -> Image.Image:
        """Draw one image.

        Args:
            image: The image.
            sample: Data sample of :meth:`.Captioner.predict`; ``gt_caption`` (str or list of
                str) holds the references, if any.
            model: The captioner that made the prediction.
            title: Name of the image. Defaults to none.

        Returns:
            RGB image.

        Raises:
            UserError: If the fields of the sample do not match each other, the model or the grid.
        """
        references = sample.get("gt_caption") or []
        references = [references] if isinstance(references, str) else references
        entry = SheetEntry(image, sample.pred_caption, references, title=title)
        if "pred_concept_ids" not in sample:
            return contact_sheet([entry], columns=1, font=self.font)
        neck = dict(model.named_children()).get("neck")
        if not isinstance(neck, ConceptNeck):
            raise UserError(
                "the model must have `neck.concept_words`, the words of `pred_concept_ids`"
            )
        concepts, patches = concepts_of_sample(sample, neck.concept_words)
        entry = SheetEntry(image, sample.pred_caption, references, concepts, patches, title)
        if "pred_affinity" not in sample:
            return contact_sheet([entry], columns=1, font=self.font)
        grid = self.grid or _grid(model, len(sample.pred_affinity))
        maps = affinity_maps(image, sample.pred_affinity, concepts, grid, font=self.font)
        return _stack(contact_sheet([entry], grid, columns=1, font=self.font), maps)

    def _validation_index(self, runner: Runner) -> int:
        """Return the epoch, or the index of the validation in an iteration-based loop."""
        if not self._is_training:
            return 0
        loop = runner.train_loop
        if isinstance(loop, IterBasedTrainLoop):
            return loop.iter // loop.val_interval
        return runner.epoch

    def _step(self, runner: Runner) -> int:
        if not self._is_training:
            return 0
        by_iteration = isinstance(runner.train_loop, IterBasedTrainLoop)
        return runner.iter if by_iteration else runner.epoch

    def _draw_batch(self, runner: Runner, outputs: Sequence[DataSample] | None, split: str) -> None:
        if not self._num_due or outputs is None:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for sample in outputs[: self._num_due]:
            name = "?"
            try:
                name = str(sample.get("image_id", self._num_seen))
                picture = self.draw(self._image(runner, sample, split), sample, model, name)
                runner.visualizer.add_image(
                    f"{split}_mix_{_safe_name(name)}", np.array(picture), step=self._step(runner)
                )
            except Exception as error:
                self._log_once(
                    runner.logger.error,
                    "failure",
                    f"image {name} of {split} cannot be drawn ({type(error).__name__}: {error}). "
                    "The run continues; further failures are not logged",
                )
            self._num_seen += 1
            self._num_due -= 1

    def _image(self, runner: Runner, sample: DataSample, split: str) -> Image.Image:
        path = sample.get("img_path")
        try:
            if path is not None:
                image = read_image(path)
                image.thumbnail(_MAX_SIZE)
                return image
            reason = "the data samples have no `img_path`"
        except (OSError, UserError) as error:
            reason = str(error)
        self._log_once(
            runner.logger.warning,
            split,
            f"draws images of {split} as gray squares: {reason}. Set "
            f"{split}_dataloader.dataset.data_prefix=FOLDER to the folder of the images from which "
            "the feature store was extracted",
        )
        return Image.new("RGB", (64, 64), _PLACEHOLDER_COLOR)

    def _log_once(self, log: Any, topic: str, message: str) -> None:
        if topic not in self._logged:
            self._logged.add(topic)
            log(f"{type(self).__name__}: {message}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_font(font: str) -> None:
    try:
        ImageFont.truetype(font, 13)
    except (OSError, TypeError, AttributeError) as error:
        raise UserError(f"`font` must be a TrueType file, got {font!r}: {error}") from None


def _grid(model: torch.nn.Module, num_patches: int) -> tuple[int, int]:
    backbone = dict(model.named_children()).get("backbone")
    if isinstance(backbone, GridBackbone):
        return backbone.grid
    side = round(num_patches**0.5)
    if side * side != num_patches:
        raise UserError(
            f"`pred_affinity` has {num_patches} patches, which do not form a square: set `grid` of "
            "the hook to (rows, columns)"
        )
    return side, side


def _stack(card: Image.Image, maps: Image.Image) -> Image.Image:
    """Return the maps below the card."""
    width = max(card.width, maps.width + 2 * GAP)
    picture = Image.new("RGB", (width, card.height + maps.height + GAP), BACKGROUND)
    picture.paste(card, (0, 0))
    picture.paste(maps, (GAP, card.height))
    return picture


def _safe_name(image_id: str) -> str:
    """Return an id as part of a file name; different ids have different names."""
    # LocalVisBackend creates no folders, and its writer ignores files that it cannot create.
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", image_id)[:_MAX_ID_LENGTH]
    if name == image_id:
        return name
    return f"{name}-{hashlib.sha256(image_id.encode()).hexdigest()[:8]}"
