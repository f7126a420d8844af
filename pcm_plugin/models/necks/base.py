"""Base class of necks."""

from abc import ABCMeta, abstractmethod
from collections.abc import Mapping, Sequence

from mmengine.model import BaseModule
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.formats.required_file import ReadsFiles
from pcm_plugin.models.necks.concept_bank import ConceptBank
from pcm_plugin.models.necks.output import NeckOutput


class Neck(BaseModule, ReadsFiles, metaclass=ABCMeta):
    """Base class of necks: CLIP features to the tokens of a captioner.

    Attributes:
        clip_dim (int): Width Dc of the global features.
        embed_dims (int): Width D of the tokens.
        takes_patches (bool): Whether the neck reads patch features. If not, its input is one vector
            of CLIP's joint space, which can also be the feature of a region or of a text.
        patches_in_joint_space (bool | None): Whether patch features must be in CLIP's joint space;
            None if the neck takes both kinds, or no patches.
    """

    clip_dim: int
    embed_dims: int
    takes_patches: bool = True
    patches_in_joint_space: bool | None = None

    @abstractmethod
    def forward(self, patch_feats: Tensor | None, global_feats: Tensor) -> NeckOutput:
        """Compute the tokens of a captioner.

        Args:
            patch_feats: (B, N, Dv), or None for a neck that uses only the global features.
            global_feats: (B, Dc), CLIP image or text embeddings.
        """

    @property
    def concept_bank(self) -> ConceptBank | None:
        """Concepts that the neck retrieves, or None. The base class has none."""
        return None

    @property
    def concept_words(self) -> list[str]:
        """Words of the concepts; empty without a concept bank."""
        return [] if self.concept_bank is None else self.concept_bank.words

    def set_concepts(self, words: Sequence[str], embeddings: Tensor) -> None:
        """Set the concepts; see :meth:`.ConceptBank.set_concepts`.

        Raises:
            UserError: If the neck retrieves no concepts, or the sizes do not match.
        """
        if self.concept_bank is None:
            raise UserError(
                f"`concepts` must be None for this {type(self).__name__}, which retrieves none, "
                f"got `{len(words)}` words"
            )
        self.concept_bank.set_concepts(words, embeddings)

    @property
    def needs_clip_head(self) -> bool:
        """Whether :meth:`set_clip_head` must be called. Defaults to False."""
        return False

    def set_clip_head(self, head: Mapping[str, Tensor]) -> None:
        """Set CLIP's image head; see :meth:`.ClipHead.set_tensors`.

        Raises:
            UserError: If the neck has no such head, or the shapes do not match.
        """
        raise UserError(
            f"`clip_head` must be None for this {type(self).__name__}, which projects no patches"
        )

    def extra_tensors(self) -> dict[str, Tensor]:
        """Return the tensors that inference needs and a checkpoint does not contain, by name."""
        bank = self.concept_bank
        return {} if bank is None or not bank.words else {"concepts": bank.embeddings}

    def set_extra_tensors(self, tensors: Mapping[str, Tensor], concept_words: list[str]) -> None:
        """Set the tensors that :meth:`extra_tensors` returned.

        Args:
            tensors: Tensors by name. Unknown names are ignored.
            concept_words: Words of the concepts.
        """
        if "concepts" in tensors:
            self.set_concepts(concept_words, tensors["concepts"])
