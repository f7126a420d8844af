"""Which patches are mixed with text, and where the text goes (paper, Sec. 3.2)."""

import torch
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.models.functional.precision import full_precision


def num_top_pairs(top_patches: float, num_patches: int, num_concepts: int) -> int:
    """How many patch-concept pairs are taken.

    Args:
        top_patches: A number of pairs from 1 on, or below 1 their share of all N * K.
        num_patches: N.
        num_concepts: K.

    Returns:
        A number from 1 to N * K.

    Raises:
        UserError: If that comes to none, or to more than there are.
    """
    total = num_patches * num_concepts
    count = int(top_patches * total) if top_patches < 1 else int(top_patches)
    if not 1 <= count <= total:
        raise UserError(
            f"top_patches={top_patches} takes {count} of {num_patches} patches x {num_concepts} "
            f"concepts: give a number from 1 to {total}, or a share from {1 / total:.2g} to 1"
        )
    return count


@full_precision
def select_patches_by_pairs(affinity: Tensor, num_pairs: int, temperature: float) -> Tensor:
    """Select the patches that own one of the best patch-concept pairs (released code).

    Args:
        affinity: (B, N, K); 0 for masked concepts, which compete like any other: where all else
            is negative, they win.
        num_pairs: M. Pairs may share a patch, so that fewer than M patches are selected.
        temperature: Of the softmax over the N * K pairs.

    Returns:
        (B, N) bool.
    """
    # The softmax changes no order, but it makes ties by rounding; the released captions show how
    # those are broken.
    scores = (affinity.flatten(1) / temperature).softmax(-1)
    best = scores.topk(num_pairs, dim=-1).indices
    owners = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, best, True)
    return owners.view_as(affinity).any(-1)


@full_precision
def select_patches_by_count(affinity: Tensor, num_patches: int) -> Tensor:
    """Select the patches that own the best patch-concept pairs, as many as are asked for.

    Those of :func:`select_patches_by_pairs` for as many pairs, and then the next best patches.

    Args:
        affinity: (B, N, K); 0 for masked concepts.
        num_patches: M.

    Returns:
        (B, N) bool, M true in each row.
    """
    best = affinity.amax(-1).topk(num_patches, dim=-1).indices
    selected = torch.zeros(affinity.shape[:2], dtype=torch.bool, device=affinity.device)
    return selected.scatter_(1, best, True)


def pack_slots(selected: Tensor, num_slots: int) -> Tensor:
    """List the selected patches of each image.

    Args:
        selected: (B, N) bool, at most ``num_slots`` of them true in a row.
        num_slots: M.

    Returns:
        (B, M) int64: patch indices, ascending, then -1.
    """
    order = selected.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :num_slots]
    return torch.where(selected.gather(1, order), order, -1)


def gather_slots(values: Tensor, slots: Tensor) -> Tensor:
    """Take each slot's row; an unused slot gets row 0, to be masked by the caller.

    Args:
        values: (B, N, X).
        slots: (B, M), as :func:`pack_slots` gives them.

    Returns:
        (B, M, X).
    """
    index = slots.clamp(min=0).unsqueeze(-1).expand(-1, -1, values.shape[-1])
    return values.gather(1, index)


def replace_selected(values: Tensor, slot_values: Tensor, selected: Tensor) -> Tensor:
    """Put the slots' vectors in the place of the selected patches.

    Args:
        values: (B, N, D).
        slot_values: (B, M, D), in the order of :func:`pack_slots`.
        selected: (B, N) bool.

    Returns:
        (B, N, D), a new tensor.
    """
    return replace_patches(values, slot_values, selected, None)


def replace_patches(
    values: Tensor, slot_values: Tensor, selected: Tensor, cells: Tensor | None
) -> Tensor:
    """Put the slots' vectors in the place of all patches of a finer grid that they cover.

    Args:
        values: (B, P, D), the patches of the finer grid.
        slot_values: (B, M, D), in the order of :func:`pack_slots`.
        selected: (B, N) bool, of the coarser grid.
        cells: (P,) int64, the patch of the coarser grid that each covers, as :func:`map_patch_grid`
            gives it; None if the grids are one.

    Returns:
        (B, P, D), a new tensor.
    """
    slot_of_patch = (selected.cumsum(1) - 1).clamp(min=0)
    if cells is not None:
        slot_of_patch, selected = slot_of_patch[:, cells], selected[:, cells]
    index = slot_of_patch.unsqueeze(-1).expand(-1, -1, slot_values.shape[-1])
    spread = slot_values.gather(1, index)
    return torch.where(selected.unsqueeze(-1), spread.to(values.dtype), values)


def map_patch_grid(fine: tuple[int, int], coarse: tuple[int, int]) -> Tensor:
    """Which patch of a coarse grid holds the centre of each patch of a fine one.

    Both grids cover the same picture.

    Args:
        fine: Rows and columns.
        coarse: Rows and columns, not more than those of ``fine``, so that each patch is held.

    Returns:
        (rows * columns of ``fine``,) int64, row by row.

    Raises:
        UserError: If ``coarse`` is the finer one.
    """
    if fine[0] < coarse[0] or fine[1] < coarse[1]:
        raise UserError(
            f"a grid of {fine} patches is coarser than CLIP's of {coarse}: average CLIP's patches "
            "over windows (pool of OpenCLIPBackbone)"
        )
    rows, columns = (
        ((torch.arange(n) + 0.5) * (m / n)).long() for n, m in zip(fine, coarse, strict=True)
    )
    return (rows[:, None] * coarse[1] + columns).flatten()
