"""Names of the stages."""

STAGES = ("corpus", "generate", "extract", "photos", "refine")
"""Stages of the data engine, in order. Only a recipe with photos has the stage ``photos``."""

TEXT_STAGES = ("corpus", "extract")
"""Stages for captions alone, in order."""
