"""Selection of the patches to mix with text, and placement of the text (paper, Sec. 3.2)."""

import torch
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.models.functional.precision import full_precision


@full_precision
def select_patches_by_pairs(affinity: Tensor, num_pairs: int, temperature: float) -> Tensor:
    """Select the patches of the patch-concept pairs with the highest affinity (released code).

    Args:
        affinity: (B, N, K); 0 for masked concepts, which are not excluded: they are selected if all
            other affinities are negative.
        num_pairs: M, the number of pairs. Pairs may share a patch, so fewer than M patches may be
            selected.
        temperature: Temperature of the softmax over the N * K pairs.

    Returns:
        (B, N) bool.
    """
    # The softmax keeps the order, but rounding makes ties, and the captions of the released code
    # depend on how topk breaks them.
    scores = (affinity.flatten(1) / temperature).softmax(-1)  # (B, N * K)
    best = scores.topk(num_pairs, dim=-1).indices  # (B, M)
    selected_pairs = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, best, True)
    return selected_pairs.view_as(affinity).any(-1)  # (B, N)


@full_precision
def select_patches_by_count(affinity: Tensor, num_patches: int) -> Tensor:
    """Select a fixed number of patches by their highest affinity with any concept.

    This includes the patches that :func:`select_patches_by_pairs` selects for as many pairs.

    Args:
        affinity: (B, N, K); 0 for masked concepts.
        num_patches: M.

    Returns:
        (B, N) bool, M True in each row.
    """
    best = affinity.amax(-1).topk(num_patches, dim=-1).indices  # (B, M)
    selected = torch.zeros(affinity.shape[:2], dtype=torch.bool, device=affinity.device)
    return selected.scatter_(1, best, True)


@full_precision
def select_pairs_per_concept(affinity: Tensor, is_kept: Tensor) -> Tensor:
    """Select the patch with the highest affinity for each concept.

    Args:
        affinity: (B, N, K).
        is_kept: (B, K) bool, False for concepts that select no patch.

    Returns:
        (B, N, K) bool, one True per concept that is kept. Concepts may share a patch.
    """
    best = affinity.argmax(1, keepdim=True)  # (B, 1, K)
    pairs = torch.zeros_like(affinity, dtype=torch.bool).scatter_(1, best, True)
    return pairs & is_kept.unsqueeze(1)


def shuffle_patches(selected: Tensor) -> Tensor:
    """Select as many patches of each image, at random: (B, N) bool to (B, N) bool."""
    order = torch.rand(selected.shape, device=selected.device).argsort(1)
    return selected.gather(1, order)


def shuffle_slots(values: Tensor, slots: Tensor) -> Tensor:
    """Permute the rows of the used slots of each image at random.

    Args:
        values: (B, M, X).
        slots: (B, M) int64, from :func:`pack_slots`.

    Returns:
        (B, M, X); the rows of unused slots stay last.
    """
    noise = torch.rand(slots.shape, device=slots.device).masked_fill(slots < 0, 2.0)
    order = noise.argsort(1).unsqueeze(-1).expand(-1, -1, values.shape[-1])  # (B, M, X)
    return values.gather(1, order)


def pack_slots(selected: Tensor, num_slots: int) -> Tensor:
    """List the selected patches of each image.

    Args:
        selected: (B, N) bool, at most M True in each row.
        num_slots: M.

    Returns:
        (B, M) int64, patch indices in ascending order, then -1.
    """
    # A stable sort of True before False keeps the indices ascending.
    order = selected.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :num_slots]
    return torch.where(selected.gather(1, order), order, -1)


def gather_slots(values: Tensor, slots: Tensor) -> Tensor:
    """Gather the row of each slot; unused slots get row 0, which the caller must mask.

    Args:
        values: (B, N, X).
        slots: (B, M) int64, from :func:`pack_slots`.

    Returns:
        (B, M, X).
    """
    index = slots.clamp(min=0).unsqueeze(-1).expand(-1, -1, values.shape[-1])  # (B, M, X)
    return values.gather(1, index)


def replace_patches(
    values: Tensor, slot_values: Tensor, selected: Tensor, cells: Tensor | None = None
) -> Tensor:
    """Replace the selected patches by the vectors of their slots.

    The replaced patches may be on a finer grid than the selection; each then takes the vector of
    the coarse patch that contains it.

    Args:
        values: (B, P, D), the patches to replace.
        slot_values: (B, M, D), in the order of :func:`pack_slots`.
        selected: (B, N) bool, on the coarse grid.
        cells: (P,) int64, the coarse patch that contains each patch, from :func:`map_patch_grid`.
            Defaults to None: both grids are the same, P = N.

    Returns:
        (B, P, D), a new tensor.
    """
    slot_of_patch = (selected.cumsum(1) - 1).clamp(min=0)  # (B, N)
    if cells is not None:
        slot_of_patch, selected = slot_of_patch[:, cells], selected[:, cells]  # (B, P) each
    index = slot_of_patch.unsqueeze(-1).expand(-1, -1, slot_values.shape[-1])  # (B, P, D)
    replacement = slot_values.gather(1, index)  # (B, P, D)
    return torch.where(selected.unsqueeze(-1), replacement.to(values.dtype), values)


def map_patch_grid(fine: tuple[int, int], coarse: tuple[int, int]) -> Tensor:
    """Find the patch of a coarse grid that contains the center of each patch of a fine grid.

    Both grids cover the same image.

    Args:
        fine: Number of rows and columns.
        coarse: Number of rows and columns, at most those of ``fine``.

    Returns:
        (rows * columns of ``fine``,) int64, in row-major order.

    Raises:
        UserError: If ``coarse`` has more rows or columns than ``fine``.
    """
    if fine[0] < coarse[0] or fine[1] < coarse[1]:
        raise UserError(
            f"the grid of patches must be at least as fine as CLIP's {coarse}, got {fine}: average "
            "CLIP's patches over windows (`pool` of OpenCLIPBackbone)"
        )
    rows, columns = (
        ((torch.arange(n) + 0.5) * (m / n)).long() for n, m in zip(fine, coarse, strict=True)
    )
    return (rows[:, None] * coarse[1] + columns).flatten()
