"""Check that a training does not see what is held out for its validation."""

from typing import Any

from pcm_plugin.datasets import SynthCaptionDataset
from pcm_plugin.engine.training_captions import HasCaptions, leaf_datasets
from pcm_plugin.errors import UserError
from pcm_plugin.formats.image_ids import name_some
from pcm_plugin.formats.languages import split_words


def check_held_out(training: Any, validation: Any, language: str) -> None:
    """Check that no caption and no image of a held-out split is trained on.

    A split of ``pcm make-dataset`` consists of images of a feature store with a file of references.
    Other validation data are not checked. Captions are equal if they have the same words in the
    same order; the split is made such that no caption outside of it has the words of one in it.

    Args:
        training: Dataset of the training, possibly of wrapped datasets.
        validation: Dataset of the validation.
        language: Language of the captions.

    Raises:
        UserError: If held-out captions or images are trained on. The message names their number.
    """
    if not isinstance(validation, SynthCaptionDataset) or validation.references is None:
        return
    texts = {text for own in validation.references.values() for text in own}
    held_out = {tuple(split_words(text, language)) for text in texts}
    images = validation.image_keys()
    captions: list[str] = []
    shown = 0
    for dataset in leaf_datasets(training):
        if isinstance(dataset, HasCaptions):
            captions += (
                text
                for text in dataset.iter_captions()
                if text in texts or tuple(split_words(text, language)) in held_out
            )
        if isinstance(dataset, SynthCaptionDataset):
            shown += len(images & dataset.image_keys())
    if captions or shown:
        named = f" ({name_some(list(dict.fromkeys(captions)))})" if captions else ""
        raise UserError(
            f"train_dataloader.dataset trains on {len(captions):,} captions{named} and {shown:,} "
            "images that are held out for the validation of this config, so its scores would be "
            "too high: set train_dataloader.dataset.pairs to a file without them, such as "
            "validation/train_pairs.safetensors of the data set, or one that `pcm refine --among` "
            "or `pcm store merge --pairs` makes from it; or train without validation "
            "(val_dataloader=None val_cfg=None val_evaluator=None)"
        )
