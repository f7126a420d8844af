"""Features of the toy world's images, on which captioners are compared."""

from dataclasses import dataclass
from pathlib import Path

from pcm_plugin.commands.toyworld.steps import CLIP, DATA


@dataclass(frozen=True)
class Features:
    """Features of the images, on which captioners are trained and tested.

    Attributes:
        title: Addition to the titles of rows.
        subfolder: Folder of the stores in that of the domain; ``""`` for the stores of the demo.
        clip: CLIP that computes them, as for ``pcm extract --model``.
        patch_mode: Value of ``pcm extract --patch-mode``.
        options: Changes of the config, as for ``--cfg-options``, in addition to the paths.
        is_rotated: Whether the projection of the patches into the joint space is followed by a
            fixed random rotation. Patches keep what they contain, but their affinities to concepts
            say nothing about it.
    """

    title: str = ""
    subfolder: str = ""
    clip: str = CLIP
    patch_mode: str = "plain"
    options: tuple[str, ...] = ()
    is_rotated: bool = False

    def folder(self, domain: str = "town") -> Path:
        """Return the folder of the stores and concepts of a domain."""
        return DATA / domain / self.subfolder

    @property
    def head(self) -> Path:
        """CLIP head that projects the patches."""
        if self.is_rotated:
            return self.folder() / "rotated_head.safetensors"
        return self.folder() / "train_store" / "clip_head.safetensors"

    def config_options(self) -> tuple[str, ...]:
        """Return all changes of the config; none for the features of the demo."""
        options = [*self.options]
        if self.subfolder:
            stores = {split: f"{self.folder()}/{split}_store" for split in ("train", "val", "test")}
            options += [f"{split}_dataloader.dataset.store={s}" for split, s in stores.items()]
            options.append(f"model.neck.concepts={self.folder()}/concepts.safetensors")
        if self.subfolder or self.is_rotated:
            options.append(f"model.neck.clip_head={self.head}")
        return tuple(options)


def _of_mode(mode: str) -> Features:
    return Features(f"{mode} patches", mode, CLIP, mode, (f"clip.patch_mode={mode}",))


TAUGHT_CLIP = f"local-dir:{Path('benchmarks/taught_clip')}"
"""CLIP whose training used the locations of things."""
# The temperature fits that CLIP, whose logit scale is 34.6.
_OF_TAUGHT = (
    f"clip.model_name={TAUGHT_CLIP}",
    "model.neck.patch_dim=128",
    "model.neck.temperature=0.03",
)
FEATURES = {
    "plain": Features(),
    "maskclip": _of_mode("maskclip"),
    "sclip": _of_mode("sclip"),
    "rotated": Features("rotated patches", is_rotated=True),
    "taught": Features("taught patches", "taught", TAUGHT_CLIP, options=_OF_TAUGHT),
    "taught_rotated": Features(
        "taught patches, rotated", "taught", TAUGHT_CLIP, options=_OF_TAUGHT, is_rotated=True
    ),
}
"""Features of the images of the toy world, by name."""
MODES = [name for name, features in FEATURES.items() if name == features.patch_mode]
"""Names of the features of the packaged CLIP, one per patch mode."""
