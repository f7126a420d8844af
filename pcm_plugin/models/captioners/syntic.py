"""SynTIC, reconstructed from its paper."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pcm_plugin.errors import UserError
from pcm_plugin.models.captioners.pcm_net import PCMNet
from pcm_plugin.registry import MODELS
from pcm_plugin.structures import DataSample


@MODELS.register_module()
class SynTIC(PCMNet):
    """SynTIC (AAAI 2024, arXiv 2312.08865), a reconstruction: PCMNet on an ObjectPrefix.

    SynTIC trains a Transformer decoder with 4 layers and 4 heads on synthetic images. Their
    features are refined towards those of real images (``pcm refine --method contrast``),
    projected onto a memory of texts, and complemented by the objects in the image. Everything
    except the decoder is frozen. There is no public code; the choices of this reconstruction are
    listed in ObjectPrefix, in ``refine_by_contrast``, and here:

    - The decoder cross-attends to the prefix instead of continuing it. It gets the same
      information about the image, and the beam search is that of the other captioners.
    - Objects are concepts of the neck. They are taken from data samples with ``object_labels``
      (list of str, e.g. the labels of a detector: ``SynthCaptionDataset(object_labels=...)``);
      otherwise the neck retrieves them.

    The arguments are those of PCMNet; ``neck`` is ObjectPrefix and ``encoder`` is None.
    """

    def extra_neck_inputs(
        self, data_samples: Sequence[DataSample] | None, global_feats: Tensor
    ) -> dict[str, Tensor]:
        """Return the object labels of the images; see :meth:`.Captioner.extra_neck_inputs`.

        Returns:
            ``{'objects': (B, K') int64}``; empty if no data sample has ``object_labels``.

        Raises:
            UserError: If only some data samples have objects, or one is not a concept of the neck.
        """
        labels = [sample.get("object_labels") for sample in data_samples or ()]
        if all(objects is None for objects in labels):
            return {}
        return {"objects": self.label_ids(labels).to(global_feats.device)}

    def label_ids(self, labels: Sequence[Sequence[str] | None]) -> Tensor:
        """Convert object labels to concept ids.

        Args:
            labels: Labels of each of B images.

        Returns:
            (B, K') int64, indices into the neck's ``concept_words``, padded with -1.

        Raises:
            UserError: If the labels of an image are None, or a label is not a concept of the neck.
        """
        bank = self.neck.concept_bank
        ids_of = {} if bank is None else bank.ids
        rows = []
        for objects in labels:
            if objects is None:
                raise UserError(
                    "`object_labels` must be set for all data samples or for none, got both: pass "
                    "an empty list for an image without objects"
                )
            unknown = [label for label in objects if label not in ids_of]
            if unknown:
                raise UserError(
                    f"`object_labels` must be concepts of the neck, got `{unknown}`: map the "
                    "detector's labels to concept_words, or add them to the concept file "
                    "(`pcm build-concepts` builds one from a list of words)"
                )
            rows.append([ids_of[label] for label in objects])
        longest = max(map(len, rows))
        padded = [row + [-1] * (longest - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.int64)  # (B, K')
