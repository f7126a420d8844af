"""Names of the stages."""

STAGES = ("corpus", "generate", "extract", "refine")
"""Stages of the data engine, in order."""
