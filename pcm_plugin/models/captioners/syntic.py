"""SynTIC: a reconstruction."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.models.captioners.pcm_net import PCMNet
from pcm_plugin.registry import MODELS
from pcm_plugin.structures import DataSample


@MODELS.register_module()
class SynTIC(PCMNet):
    """Captioner on an image in the words of a memory, and on its objects: a reconstruction.

    SynTIC (AAAI 2024, arXiv 2312.08865) trains a Transformer decoder of 4 layers and 4 heads on
    synthetic images, their features refined toward real ones (``tools/refine.py --method
    contrast``), put together from texts, and helped by the objects in them; all else is frozen. No
    code is public, so that this is a reconstruction; its choices are named in ObjectPrefix, in
    ``refine_by_contrast``, and here:

    - Our decoder attends to the prefix instead of reading it as its first words: what it knows of
      the image is the same, and the beam search is the one of all our captioners.
    - Objects are concepts of the neck. Where data samples bring ``object_labels`` (list of str, such as a
      detector's labels: ``SynthCaptionDataset(object_labels=...)``) these are taken, else the neck finds
      them.

    The arguments are PCMNet's; ``neck`` is ObjectPrefix, and ``encoder`` None.
    """

    def known(
        self, data_samples: Sequence[DataSample] | None, global_feats: Tensor
    ) -> dict[str, Tensor]:
        """The objects of the images, where data samples bring them; see :meth:`Captioner.known`.

        Raises:
            UserError: If only some images have objects, or one is no concept of the neck.
        """
        labels = [sample.get("object_labels") for sample in data_samples or ()]
        if all(own is None for own in labels):
            return {}
        return {"objects": self.number(labels).to(global_feats.device)}

    def number(self, labels: Sequence[Sequence[str] | None]) -> Tensor:
        """Objects as concepts.

        Args:
            labels: Those of each of B images.

        Returns:
            (B, K') int64, numbers in the neck's ``concept_words``, -1 after the last.

        Raises:
            UserError: If an image has none given, or an object is no concept of the neck.
        """
        numbers = {word: i for i, word in enumerate(self.neck.concept_words)}
        rows = []
        for own in labels:
            if own is None:
                raise UserError(
                    "some data samples have objects and some have none: give all or no images "
                    "theirs, an empty list where there is nothing"
                )
            unknown = [label for label in own if label not in numbers]
            if unknown:
                raise UserError(
                    f"objects {unknown} are no concepts of the neck: map a detector's labels to "
                    "its concept_words, or add them to the concept file "
                    "(tools/build_concepts.py makes one of a list of words)"
                )
            rows.append([numbers[label] for label in own])
        longest = max(map(len, rows))
        padded = [row + [-1] * (longest - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.int64)
