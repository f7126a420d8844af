"""The stages of the data engine in sequence."""
