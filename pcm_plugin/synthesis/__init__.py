"""Data engine: captions to image shards, feature stores and selected pairs."""
