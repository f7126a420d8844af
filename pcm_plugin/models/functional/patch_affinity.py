"""Which concept a patch shows, and what it would look like as text (paper, Eqs. 2 and 3)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.models.functional.precision import full_precision


@full_precision
def project_patches(
    patch_feats: Tensor, ln_weight: Tensor, ln_bias: Tensor, proj: Tensor, eps: float = 1e-5
) -> Tensor:
    """Put patch features through CLIP's own head, as DenseCLIP does.

    Args:
        patch_feats: (B, N, Dv), hidden states of CLIP's image tower before ``ln_post``.
        ln_weight: (Dv,), weight of ``ln_post``.
        ln_bias: (Dv,), bias of ``ln_post``.
        proj: (Dv, Dc), CLIP's image projection.
        eps: Of ``ln_post``. Defaults to 1e-5.

    Returns:
        (B, N, Dc) float32 in CLIP's joint space, not normalised.
    """
    return F.layer_norm(patch_feats, ln_weight.shape, ln_weight, ln_bias, eps) @ proj


def fold_head_bias(proj: Tensor, bias: Tensor) -> Tensor:
    """What to add before a projection instead of a bias after it.

    ``(x + d) @ proj = x @ proj + bias`` is exact wherever the projection reaches the bias at all,
    as one of full column rank does.

    Args:
        proj: (Dv, Dc), of any floating type.
        bias: (Dc,).

    Returns:
        d (Dv,), the shortest there is, float64.

    Raises:
        UserError: If no vector gives this bias.
    """
    proj, bias = proj.double(), bias.double()
    fold = bias @ torch.linalg.pinv(proj)
    # As it will be used, in float32.
    missed = fold.float().double() @ proj - bias
    if missed.abs().max() > 1e-4 * bias.abs().max():
        raise UserError(
            f"a projection {tuple(proj.shape)} misses the bias that follows it by "
            f"{missed.abs().max():.1e} of {bias.abs().max():.1e}, which cannot be put before "
            "it: choose another CLIP"
        )
    return fold


@full_precision
def patch_concept_affinity(local_feats: Tensor, concepts: Tensor) -> Tensor:
    """Cosine of every patch with every kept concept (paper, Eq. 2).

    Args:
        local_feats: (B, N, Dc), patches in CLIP's joint space.
        concepts: (B, K, Dc), as :func:`~.concept_retrieval.retrieve_concepts` gives them: length 1 or 0.

    Returns:
        (B, N, K) float32; 0 for a masked concept.
    """
    return F.normalize(local_feats, dim=-1) @ concepts.transpose(1, 2)


@full_precision
def text_map(affinity: Tensor, concepts: Tensor, temperature: float) -> Tensor:
    """Describe each patch by concepts (paper, Eq. 3).

    A masked concept is a zero vector that still takes its share of the softmax (released code).

    Args:
        affinity: (B, S, K), of all patches or of some.
        concepts: (B, K, Dc).
        temperature: Of the softmax over the K concepts.

    Returns:
        (B, S, Dc) float32.
    """
    return (affinity / temperature).softmax(-1) @ concepts
