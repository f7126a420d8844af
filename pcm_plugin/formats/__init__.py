"""Files that one stage writes and another reads, with reader and writer in one module."""
