"""Importers of released files."""
