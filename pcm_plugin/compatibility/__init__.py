"""Differences between versions of the libraries, handled without changing anything in them.

A module imports only the libraries that it is about, so that reading Parquet files, for example,
does not import torch.
"""
