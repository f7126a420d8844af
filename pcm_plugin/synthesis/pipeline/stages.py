"""Names of the stages."""

STAGES = ("corpus", "generate", "extract", "refine")
"""Stages of the data engine, in order."""

TEXT_STAGES = ("corpus", "extract")
"""Stages for captions alone, in order."""
