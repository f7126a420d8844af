"""Command-line programs of the toy world."""
