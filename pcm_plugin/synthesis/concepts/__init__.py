"""Concepts of a corpus and their text embeddings."""
