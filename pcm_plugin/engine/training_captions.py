"""Datasets whose captions can be read without features or images."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from mmengine.dataset import ClassBalancedDataset, RepeatDataset
from torch.utils.data import ConcatDataset, Subset


@runtime_checkable
class HasCaptions(Protocol):
    """Dataset that provides its captions without loading features or images."""

    def iter_captions(self) -> Iterator[str]:
        """Iterate over the captions of all samples."""


def leaf_datasets(dataset: Any) -> Iterator[Any]:
    """Yield the datasets inside wrappers that concatenate or repeat datasets."""
    if isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            yield from leaf_datasets(part)
    elif isinstance(dataset, RepeatDataset | ClassBalancedDataset | Subset):
        yield from leaf_datasets(dataset.dataset)
    else:
        yield dataset
