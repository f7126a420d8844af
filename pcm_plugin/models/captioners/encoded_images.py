"""Encoded images, as a captioner hands them to its decoder."""

from typing import NamedTuple

from torch import Tensor

from pcm_plugin.models.necks import NeckOutput


class EncodedImages(NamedTuple):
    """Encoder output of a batch of B images.

    Attributes:
        encoder_out: (B, L, D), the sequence that the decoder attends to or continues.
        mask: (B, L) bool, True for positions of ``encoder_out`` that may be attended to.
        neck_out: Output of the neck: concepts, selected patches, and tokens before the encoder.
    """

    encoder_out: Tensor
    mask: Tensor
    neck_out: NeckOutput
