"""Caption search and re-ranking."""
