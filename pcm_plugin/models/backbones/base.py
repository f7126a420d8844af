"""Base class of CLIP backbones."""

from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor

from pcm_plugin.formats.clip_head import CLIP_HEAD_KEYS
from pcm_plugin.models.functional.patch_affinity import project_patches


class Backbone(BaseModule, metaclass=ABCMeta):
    """Base class of frozen CLIPs that compute the features of images and texts.

    Attributes:
        model_name (str): Name of the CLIP.
        pool (int): Side of the windows that patches are averaged over; 1 for none.
        patch_mode (str): Attention of the last block for the patches; ``'plain'`` for CLIP's own.
        patch_dim (int): Width Dv of the patch features.
        clip_dim (int): Width Dc of the joint space.
        num_patches (int): Number N of patches per image.
        grid (tuple[int, int]): Rows and columns of the patches.
        patches_in_joint_space (bool): Whether patches are in the joint space. If so, there is no
            :meth:`clip_head`.
        ln_post_eps (float | None): Epsilon of the norm of :meth:`clip_head`.
        image_size (tuple[int, int]): Height and width of the images.
        resize_mode (str): How ``preprocess`` fits an image into ``image_size``, one of
            :data:`~pcm_plugin.models.functional.regions.RESIZE_MODES`.
        image_mean (tuple[float, ...]): Mean per channel of preprocessed images, in 0..1.
        image_std (tuple[float, ...]): Standard deviation per channel, in 0..1.
        preprocess: Maps a PIL image to a (3, H, W) tensor.
    """

    model_name: str
    pool: int
    patch_mode: str
    patch_dim: int
    clip_dim: int
    num_patches: int
    grid: tuple[int, int]
    patches_in_joint_space: bool
    ln_post_eps: float | None
    image_size: tuple[int, int]
    resize_mode: str
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    preprocess: Callable[[Any], Tensor]

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the features of images.

        Args:
            images: (B, 3, H, W), preprocessed.

        Returns:
            Patch features (B, N, Dv) and global features (B, Dc) with norm 1.
        """

    @abstractmethod
    def set_patch_mode(self, patch_mode: str) -> None:
        """Change the attention of the last block for the patches, by name.

        Raises:
            UserError: If the image tower has no such mode.
        """

    @abstractmethod
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embed n texts: (n, Dc) with norm 1, on the device of the model."""

    @abstractmethod
    def clip_head(self) -> dict[str, Tensor]:
        """Return the tensors of the image head, by the names of :data:`.CLIP_HEAD_KEYS`."""

    def project_patches(self, patch_feats: Tensor) -> Tensor:
        """Project patch features (B, N, Dv) into the joint space: (B, N, Dc), not normalized."""
        if self.patches_in_joint_space:
            return patch_feats
        assert self.ln_post_eps is not None
        head = self.clip_head()
        weight, bias, proj = (head[key].to(patch_feats.device) for key in CLIP_HEAD_KEYS)
        return project_patches(patch_feats, weight, bias, proj, self.ln_post_eps)
