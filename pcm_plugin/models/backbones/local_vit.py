"""Image tower of a CLIP in a local folder, built without open_clip.

Importing open_clip takes longer than captioning an image, since it imports torchvision, timm and
transformers. The config of most CLIPs describes a plain Vision Transformer, which needs none of
them. Modules have the names of open_clip's, whose weights they load, and the operations and their
order are the same, so the features are identical to the last bit.

Shapes: B images, N patches, Dv width of patch features, Dc width of the joint space.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

_CONFIG, _WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
_PREFIX = "visual."
# open_clip loads a CLIP whose config has other settings.
_MODEL_KEYS = {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"}
_VISION_KEYS = {
    *("image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio", "pool_type")
}
_PREPROCESS_KEYS = {*("size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color")}


def load_local_vit(folder: Path | None) -> "tuple[LocalVisionTransformer, LocalPreprocess] | None":
    """Load the image tower of a folder for ``local-dir:``.

    Args:
        folder: Folder with open_clip's config and weights; None for a CLIP without a folder.

    Returns:
        The tower in eval mode, and its preprocessing. None if open_clip has to load the CLIP, which
        includes folders with missing or damaged files, since open_clip reports these.
    """
    if folder is None:
        return None
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        if not _is_plain(config):
            return None
        with safe_open(folder / _WEIGHTS, "pt") as file:
            keys = [key for key in file.keys() if key.startswith(_PREFIX)]  # noqa: SIM118
            weights = {key.removeprefix(_PREFIX): file.get_tensor(key).float() for key in keys}
        with torch.device("meta"):  # the weights replace the initial ones
            tower = LocalVisionTransformer(config["model_cfg"])
        tower.load_state_dict(weights, assign=True)
    except Exception:  # open_clip loads the CLIP, or reports the problem
        return None
    return tower.eval(), LocalPreprocess(config["preprocess_cfg"], tower.image_size)


def _is_plain(config: Mapping[str, Any]) -> bool:
    """Return whether a config has only settings that this module supports."""
    model, preprocess = config["model_cfg"], config["preprocess_cfg"]
    vision = model["vision_cfg"]
    return (
        model.keys() <= _MODEL_KEYS
        and vision.keys() <= _VISION_KEYS
        and isinstance(vision["layers"], int)
        and isinstance(vision["image_size"], int)
        and vision.get("pool_type", "tok") in ("tok", "avg")
        and preprocess.keys() <= _PREPROCESS_KEYS
        and preprocess.get("mode", "RGB") == "RGB"
        and preprocess["interpolation"] == "bicubic"
        and preprocess["resize_mode"] in ("squash", "shortest")
        and len(preprocess["mean"]) == len(preprocess["std"]) == 3
    )


class LocalVisionTransformer(nn.Module):
    """Plain Vision Transformer with the attributes of open_clip's ``VisionTransformer``.

    Args:
        config: ``model_cfg`` of open_clip's config.

    Attributes:
        image_size (tuple[int, int]): Height and width of images.
        grid_size (tuple[int, int]): Rows and columns of patches.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        vision = config["vision_cfg"]
        width, patch = vision["width"], vision["patch_size"]
        self.image_size = (vision["image_size"],) * 2
        self.grid_size = (vision["image_size"] // patch,) * 2
        self.pools_patches = vision.get("pool_type", "tok") == "avg"
        self.conv1 = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        num_tokens = self.grid_size[0] * self.grid_size[1] + 1
        self.positional_embedding = nn.Parameter(torch.empty(num_tokens, width))
        self.ln_pre = nn.LayerNorm(width)
        hidden = int(width * vision.get("mlp_ratio", 4.0))
        heads = width // vision.get("head_width", 64)
        blocks = [
            _Block(width, heads, hidden, config.get("quick_gelu", False))
            for _ in range(vision["layers"])
        ]
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(blocks)})
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, config["embed_dim"]))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the last hidden states and the image embedding.

        Args:
            images: (B, 3, H, W), preprocessed.

        Returns:
            Hidden states of the patches before ``ln_post`` (B, Dv, rows, columns); and CLIP's
            image embeddings (B, Dc), not normalized.
        """
        x = self.conv1(images).flatten(2).transpose(1, 2)  # (B, N, Dv)
        token = self.class_embedding.view(1, 1, -1).expand(len(x), -1, -1).to(x.dtype)
        x = torch.cat([token, x], dim=1)  # (B, 1 + N, Dv)
        x = self.ln_pre(x + self.positional_embedding.to(x.dtype))
        for block in self.transformer["resblocks"].children():
            x = block(x)
        maps = x[:, 1:].reshape(len(x), *self.grid_size, -1).permute(0, 3, 1, 2).contiguous()
        x = self.ln_post(x)
        pooled = x[:, 1:].mean(dim=1) if self.pools_patches else x[:, 0]
        return maps, pooled @ self.proj


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, quick_gelu: bool) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, hidden), "c_proj": nn.Linear(hidden, width)}
        )
        self.quick_gelu = quick_gelu

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        y = self.mlp["c_fc"](self.ln_2(x))
        y = y * torch.sigmoid(1.702 * y) if self.quick_gelu else F.gelu(y)
        return x + self.mlp["c_proj"](y)


class LocalPreprocess:
    """Preprocessing of images, as torchvision does it for open_clip.

    Args:
        config: ``preprocess_cfg`` of open_clip's config.
        size: Height and width of the result, which are equal.
    """

    def __init__(self, config: Mapping[str, Any], size: tuple[int, int]) -> None:
        self.size, self.squash = size[0], config["resize_mode"] == "squash"
        self.mean, self.std = config["mean"], config["std"]

    def __call__(self, image: Image.Image) -> Tensor:
        """Convert an image to a (3, H, W) float32 tensor."""
        image = self._resize(image).convert("RGB")
        values = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (self.mean, self.std))
        return values.float().div(255).sub_(mean).div_(std)

    def _resize(self, image: Image.Image) -> Image.Image:
        size, (width, height) = self.size, image.size
        if self.squash:
            return image.resize((size, size), Image.Resampling.BICUBIC)
        # The shorter side becomes `size`; the center of the longer one is kept.
        long = int(size * max(width, height) / min(width, height))
        scaled = (long, size) if width > height else (size, long)
        image = image.resize(scaled, Image.Resampling.BICUBIC)
        left, top = (round((side - size) / 2.0) for side in scaled)
        return image.crop((left, top, left + size, top + size))
