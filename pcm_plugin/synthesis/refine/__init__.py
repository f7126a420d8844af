"""Refinement of pairs and of features."""
