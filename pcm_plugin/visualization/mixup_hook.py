"""What the mix does to some validation images, in every backend of MMEngine's visualizer."""

import hashlib
import re
from collections.abc import Sequence
from typing import Any

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
from pcm_plugin.visualization.sheet import SheetEntry, concepts_of_sample, contact_sheet

# The gap that contact_sheet leaves around a card, and the colour of its paper.
_MARGIN, _PAPER = 14, "#eceef1"
_SHOWN = (640, 640)
_LONGEST_ID = 80


@HOOKS.register_module()
class MixupVisualizationHook(Hook):
    """Draw what the captioner sees and says of some images, while it is validated and tested.

    Each picture is a card of :func:`contact_sheet` (the image with its mixed patches, the caption,
    the references, the concepts) above the :func:`affinity_maps` of its concepts. It goes to
    ``runner.visualizer`` under the name ``val_mix_ID`` or ``test_mix_ID`` of its image, and so to
    all ``vis_backends``: MMEngine's default writes PNG files to ``vis_data/vis_image``. Their step
    is the epoch, with an iteration-based loop the iteration, and 0 without training.

    It draws what :meth:`PCMNet.predict` leaves in data samples, so that other captioners may too;
    the words of ``pred_concept_ids`` are the model's ``neck.concept_words``. A model that mixes no
    patches gets the card alone. Image files are found by ``data_prefix`` of the dataset; without
    them the card is drawn on grey. Nothing that fails here ends a run: the first failure is logged.

    Args:
        num_images: Images to draw, the first of the split; with several processes, of those that
            the first process gets. Defaults to 8.
        interval: Draw the validations of every ``interval``-th epoch (a multiple of the loop's
            ``val_interval``, or few are both); with an iteration-based loop, every ``interval``-th
            validation. A test is always drawn. Defaults to 1.
        grid: Rows and columns of the patches. Defaults to None: the model's backbone's, or a
            square.
        font: A TrueType file, for scripts that Pillow's own font lacks. Defaults to None.

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
                raise UserError(f"{name}={value!r}: give a whole number, at least 1")
        if grid is not None and not (
            isinstance(grid, Sequence) and len(grid) == 2 and all(map(_is_count, grid))
        ):
            raise UserError(f"grid={grid!r}: give (rows, columns) of the patches, or None")
        if font is not None:
            _check_font(font)
        self.num_images = num_images
        self.interval = interval
        self.grid = None if grid is None else (grid[0], grid[1])
        self.font = font
        self._trains = False
        self._seen = self._left = 0
        self._said: set[str] = set()

    def before_train(self, runner: Runner) -> None:
        """Note that there are epochs: asking the runner for them would build a training loop."""
        self._trains = True

    def before_val_epoch(self, runner: Runner) -> None:
        """Decide whether this validation is drawn."""
        due = is_main_process() and self._number(runner) % self.interval == 0
        self._seen, self._left = 0, self.num_images if due else 0

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[DataSample] | None = None,
    ) -> None:
        """Draw the images of a batch that are due."""
        self._draw_batch(runner, outputs, "val")

    def before_test_epoch(self, runner: Runner) -> None:
        """Begin with the first image."""
        self._seen, self._left = 0, self.num_images if is_main_process() else 0

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Sequence[DataSample] | None = None,
    ) -> None:
        """Draw the images of a batch that are due."""
        self._draw_batch(runner, outputs, "test")

    def draw(
        self, image: Image.Image, sample: DataSample, model: torch.nn.Module, title: str = ""
    ) -> Image.Image:
        """Draw one image.

        Args:
            image: The image.
            sample: With the fields of :meth:`PCMNet.predict`; ``gt_caption`` (str or list of str)
                if there are references.
            model: The captioner that filled it in.
            title: A name for the image. Defaults to none.

        Returns:
            The picture, RGB.

        Raises:
            UserError: If the sample's fields do not fit each other, the model or the grid.
        """
        references = sample.get("gt_caption") or []
        references = [references] if isinstance(references, str) else references
        entry = SheetEntry(image, sample.pred_caption, references, title=title)
        if "pred_concept_ids" not in sample:
            return contact_sheet([entry], columns=1, font=self.font)
        words = getattr(getattr(model, "neck", None), "concept_words", None)
        if words is None:
            raise UserError("the model has no neck.concept_words, the words of pred_concept_ids")
        concepts, patches = concepts_of_sample(sample, words)
        entry = SheetEntry(image, sample.pred_caption, references, concepts, patches, title)
        if "pred_affinity" not in sample:
            return contact_sheet([entry], columns=1, font=self.font)
        grid = self.grid or _grid(model, len(sample.pred_affinity))
        maps = affinity_maps(image, sample.pred_affinity, concepts, grid, font=self.font)
        return _above(contact_sheet([entry], grid, columns=1, font=self.font), maps)

    def _number(self, runner: Runner) -> int:
        """Which validation this is: of epochs, or of an iteration-based loop's validations."""
        if not self._trains:
            return 0
        loop = runner.train_loop
        if isinstance(loop, IterBasedTrainLoop):
            return loop.iter // loop.val_interval
        return runner.epoch

    def _step(self, runner: Runner) -> int:
        if not self._trains:
            return 0
        by_iteration = isinstance(runner.train_loop, IterBasedTrainLoop)
        return runner.iter if by_iteration else runner.epoch

    def _draw_batch(self, runner: Runner, outputs: Sequence[DataSample] | None, split: str) -> None:
        if not self._left or outputs is None:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for sample in outputs[: self._left]:
            name = "?"
            try:
                name = str(sample.get("image_id", self._seen))
                picture = self.draw(self._image(runner, sample, split), sample, model, name)
                runner.visualizer.add_image(
                    f"{split}_mix_{_file_name(name)}", np.array(picture), step=self._step(runner)
                )
            except Exception as error:
                self._say_once(
                    runner.logger.error,
                    "failure",
                    f"image {name} of {split} cannot be drawn ({type(error).__name__}: {error}). "
                    "The run goes on; further failures are not logged",
                )
            self._seen += 1
            self._left -= 1

    def _image(self, runner: Runner, sample: DataSample, split: str) -> Image.Image:
        path = sample.get("img_path")
        try:
            if path is not None:
                image = read_image(path)
                image.thumbnail(_SHOWN)
                return image
            why = "the data samples have no img_path"
        except (OSError, ValueError) as error:
            why = str(error)
        self._say_once(
            runner.logger.warning,
            split,
            f"draws images of {split} on grey: {why}. Set "
            f"{split}_dataloader.dataset.data_prefix=FOLDER, the folder of the images from which "
            "the feature store was made",
        )
        return Image.new("RGB", (64, 64), "#9a9da3")

    def _say_once(self, log: Any, about: str, message: str) -> None:
        if about not in self._said:
            self._said.add(about)
            log(f"{type(self).__name__}: {message}")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_font(font: str) -> None:
    try:
        ImageFont.truetype(font, 13)
    except (OSError, TypeError, AttributeError) as error:
        raise UserError(f"font={font!r} is no TrueType file that can be read: {error}") from None


def _grid(model: torch.nn.Module, patches: int) -> tuple[int, int]:
    backbone = getattr(model, "backbone", None)
    if backbone is not None and hasattr(backbone, "grid"):
        return backbone.grid
    side = round(patches**0.5)
    if side * side != patches:
        raise UserError(
            f"pred_affinity has {patches} patches, which make no square: give the hook "
            "grid=(rows, columns)"
        )
    return side, side


def _above(card: Image.Image, maps: Image.Image) -> Image.Image:
    width = max(card.width, maps.width + 2 * _MARGIN)
    picture = Image.new("RGB", (width, card.height + maps.height + _MARGIN), _PAPER)
    picture.paste(card, (0, 0))
    picture.paste(maps, (_MARGIN, card.height))
    return picture


def _file_name(image_id: str) -> str:
    """An id as part of a file's name; ids that differ give names that differ."""
    # LocalVisBackend makes no folders, and its writer says nothing when a file cannot be made.
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", image_id)[:_LONGEST_ID]
    if name == image_id:
        return name
    return f"{name}-{hashlib.sha256(image_id.encode()).hexdigest()[:8]}"
