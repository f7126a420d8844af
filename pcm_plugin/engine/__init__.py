"""Hooks, loops, schedules and checks that extend MMEngine's runner."""

from typing import TYPE_CHECKING

from pcm_plugin.lazy_exports import lazy_exports
from pcm_plugin.mm_packages import require_mm_packages

require_mm_packages()

if TYPE_CHECKING:
    from pcm_plugin.engine.average_hook import AverageWeightsHook
    from pcm_plugin.engine.bf16_optim_wrapper import BFloat16OptimWrapper
    from pcm_plugin.engine.checkpoint_hook import AtomicCheckpointHook
    from pcm_plugin.engine.early_stopping_hook import ResumableEarlyStoppingHook
    from pcm_plugin.engine.noam import NoamLR
    from pcm_plugin.engine.resumable_loop import ResumableTrainLoop
    from pcm_plugin.engine.seed_hook import SeedEveryIterationHook
    from pcm_plugin.engine.vocabulary_hook import VocabularyCoverageHook

__all__ = [
    "AtomicCheckpointHook",
    "AverageWeightsHook",
    "BFloat16OptimWrapper",
    "NoamLR",
    "ResumableEarlyStoppingHook",
    "ResumableTrainLoop",
    "SeedEveryIterationHook",
    "VocabularyCoverageHook",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "AtomicCheckpointHook": "checkpoint_hook",
        "AverageWeightsHook": "average_hook",
        "BFloat16OptimWrapper": "bf16_optim_wrapper",
        "NoamLR": "noam",
        "ResumableEarlyStoppingHook": "early_stopping_hook",
        "ResumableTrainLoop": "resumable_loop",
        "SeedEveryIterationHook": "seed_hook",
        "VocabularyCoverageHook": "vocabulary_hook",
    },
)
