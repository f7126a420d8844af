"""Released feature files: one ``.npz`` per image."""

import io
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pcm_plugin.errors import UserError

Features = tuple[Tensor, Tensor]
"""Patch features (N, Dv) and the global feature (Dc,) of an image."""


def read_npz(path: Path) -> Features:
    """Read a released file.

    Returns:
        Patch features (N, Dv) and the global feature (Dc,) of length 1, both float32.

    Raises:
        OSError: If it is missing, or the disk fails.
        UserError: If it is damaged or contains something else.
    """
    data = path.read_bytes()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as content:
            patches, global_feat = content["features"], content["g_feature"]
    except Exception as error:  # numpy raises many types for broken files
        reason = f"{type(error).__name__}: {error}"
        if not data.startswith(b"PK"):
            reason = "it is not an .npz file"
        raise UserError(f"{path} cannot be read: {reason}") from None
    if patches.ndim != 2 or global_feat.ndim != 2 or len(global_feat) != 1:
        raise UserError(
            "features and g_feature must have shapes (N, Dv) and (1, Dc), got "
            f"{patches.shape} and {global_feat.shape}"
        )
    global_feat = torch.from_numpy(global_feat[0]).float()
    return torch.from_numpy(patches).float(), F.normalize(global_feat, dim=0)
