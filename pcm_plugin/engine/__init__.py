"""What MMEngine's runner needs from this package beyond models, datasets and metrics."""

from .checkpoint_hook import DurableCheckpointHook
from .loop import ResumableTrainLoop
from .noam import NoamLR
from .precision import BFloat16OptimWrapper
from .randomness import SeedEveryIterationHook
from .vocabulary_hook import VocabularyCoverageHook

__all__ = [
    "BFloat16OptimWrapper",
    "DurableCheckpointHook",
    "NoamLR",
    "ResumableTrainLoop",
    "SeedEveryIterationHook",
    "VocabularyCoverageHook",
]
