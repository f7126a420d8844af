"""Check that the vocabulary covers the training captions."""

from typing import Any, Protocol, runtime_checkable

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from pcm_plugin.engine.training_captions import HasCaptions, leaf_datasets
from pcm_plugin.formats.caption_vocabulary import CaptionVocabulary
from pcm_plugin.formats.vocabulary_coverage import MAX_UNKNOWN_CAPTIONS, VocabularyCoverage
from pcm_plugin.registry import HOOKS


@runtime_checkable
class HasVocabulary(Protocol):
    """Model with a vocabulary."""

    vocabulary: CaptionVocabulary


@HOOKS.register_module()
class VocabularyCoverageHook(Hook):
    """Hook that counts unknown words of the training captions.

    The counts are logged before the training starts. If too many captions consist of unknown words,
    as with a vocabulary of another language, the training is stopped. Models without a vocabulary,
    such as those with a language model, are not checked.

    Args:
        max_unknown_captions: Maximum share of captions without a known word. Defaults to 0.05.
    """

    def __init__(self, max_unknown_captions: float = MAX_UNKNOWN_CAPTIONS) -> None:
        self.max_unknown_captions = max_unknown_captions

    def before_train(self, runner: Any) -> None:
        """Compare all captions of the training set with the vocabulary.

        Raises:
            VocabularyCoverageError: If more than ``max_unknown_captions`` have no known word.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not isinstance(model, HasVocabulary):
            return
        for dataset in leaf_datasets(runner.train_dataloader.dataset):
            name = type(dataset).__name__
            if not isinstance(dataset, HasCaptions):
                runner.logger.warning(
                    f"{name} has no iter_captions(): its captions are not compared with the "
                    "vocabulary"
                )
                continue
            coverage = VocabularyCoverage.measure(model.vocabulary, dataset.iter_captions())
            runner.logger.info(f"Training captions: {coverage}")
            coverage.check(
                self.max_unknown_captions,
                f"train_dataloader.dataset ({name})",
                "Set model.vocabulary to one built from these captions "
                "(`pcm build-vocabulary`), or accept them with --cfg-options "
                "default_hooks.vocabulary.max_unknown_captions=SHARE",
            )
