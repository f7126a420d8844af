"""Affinity of patches and concepts, and the textual feature of a patch (paper, Eqs. 2 and 3)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.models.functional.precision import full_precision


@full_precision
def project_patches(
    patch_feats: Tensor, ln_weight: Tensor, ln_bias: Tensor, proj: Tensor, eps: float = 1e-5
) -> Tensor:
    """Project patch features into CLIP's joint space with CLIP's own head, as in DenseCLIP.

    Args:
        patch_feats: (B, N, Dv), hidden states of CLIP's image tower before ``ln_post``.
        ln_weight: (Dv,), weight of ``ln_post``.
        ln_bias: (Dv,), bias of ``ln_post``.
        proj: (Dv, Dc), CLIP's image projection.
        eps: Epsilon of ``ln_post``. Defaults to 1e-5.

    Returns:
        (B, N, Dc) float32 in CLIP's joint space, not normalized.
    """
    return F.layer_norm(patch_feats, ln_weight.shape, ln_weight, ln_bias, eps) @ proj


def fold_head_bias(proj: Tensor, bias: Tensor) -> Tensor:
    """Convert a bias after a projection to an offset d before it.

    ``(x + d) @ proj = x @ proj + bias`` has an exact solution if the bias is in the row space of
    the projection, e.g. if the projection has full column rank.

    Args:
        proj: (Dv, Dc), any floating-point dtype.
        bias: (Dc,).

    Returns:
        d (Dv,) float64, the solution of smallest norm.

    Raises:
        UserError: If there is no solution.
    """
    proj, bias = proj.double(), bias.double()
    fold = bias @ torch.linalg.pinv(proj)
    # The offset will be used in float32.
    residual = fold.float().double() @ proj - bias
    if residual.abs().max() > 1e-4 * bias.abs().max():
        raise UserError(
            f"the bias after a projection of shape {tuple(proj.shape)} cannot be converted to an "
            f"offset before it, residual {residual.abs().max():.1e} of {bias.abs().max():.1e}: "
            "choose another CLIP"
        )
    return fold


@full_precision
def patch_concept_affinity(local_feats: Tensor, concepts: Tensor) -> Tensor:
    """Compute the cosine of each patch with each retrieved concept (paper, Eq. 2).

    Args:
        local_feats: (B, N, Dc), patches in CLIP's joint space.
        concepts: (B, K, Dc), from :func:`~.concept_retrieval.retrieve_concepts`: norm 1, or 0 if
            masked.

    Returns:
        (B, N, K) float32; 0 for a masked concept.
    """
    return F.normalize(local_feats, dim=-1) @ concepts.transpose(1, 2)


@full_precision
def text_map(
    affinity: Tensor, concepts: Tensor, temperature: float, pairs: Tensor | None = None
) -> Tensor:
    """Compute the textual feature of each patch, a weighted mean of concepts (paper, Eq. 3).

    A masked concept is a zero vector, but still receives its share of the softmax (released code).
    The feature of a patch without any pair is the mean of all concepts.

    Args:
        affinity: (B, S, K), of all patches or of some.
        concepts: (B, K, Dc).
        temperature: Temperature of the softmax over the K concepts.
        pairs: (B, S, K) bool, the concepts of each patch. Defaults to None: all, as in the paper.

    Returns:
        (B, S, Dc) float32.
    """
    logits = affinity / temperature
    if pairs is not None:
        # A finite value, so that the softmax of a row without pairs is defined.
        logits = logits.masked_fill(~pairs, torch.finfo(logits.dtype).min)
    return logits.softmax(-1) @ concepts
