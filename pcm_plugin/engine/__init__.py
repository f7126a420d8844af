"""Hooks, loops, schedules and checks that extend MMEngine's runner."""

from pcm_plugin.mm_packages import require_mm_packages

require_mm_packages()

from pcm_plugin.engine.bf16_optim_wrapper import BFloat16OptimWrapper
from pcm_plugin.engine.checkpoint_hook import AtomicCheckpointHook
from pcm_plugin.engine.noam import NoamLR
from pcm_plugin.engine.resumable_loop import ResumableTrainLoop
from pcm_plugin.engine.seed_hook import SeedEveryIterationHook
from pcm_plugin.engine.vocabulary_hook import VocabularyCoverageHook

__all__ = [
    "AtomicCheckpointHook",
    "BFloat16OptimWrapper",
    "NoamLR",
    "ResumableTrainLoop",
    "SeedEveryIterationHook",
    "VocabularyCoverageHook",
]
