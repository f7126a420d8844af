"""Packing of variable-length sequences without padding."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedSequence:
    """Positions of the n tokens of B sequences in their padded form (B, T).

    Everything that works on single tokens works on the packed form (n, D); attention needs the
    padded form. Packing pays on every device: the output layer, the largest of the decoder,
    computes no logits for padding.

    Attributes:
        shape: B and T.
        indices: (n,) int64, ascending, indices of the tokens into the B * T positions.
    """

    shape: tuple[int, int]
    indices: Tensor

    @classmethod
    def from_lengths(
        cls, lengths: Tensor, max_length: int, device: torch.device
    ) -> "PackedSequence":
        """Create the positions of sequences that are padded at their ends.

        Args:
            lengths: (B,) int64, number of tokens of each sequence. On the CPU, so that computing n
                does not wait for a GPU.
            max_length: T.
            device: Device of the tokens.
        """
        is_token = torch.arange(max_length, device=lengths.device) < lengths.unsqueeze(1)  # (B, T)
        indices = is_token.flatten().nonzero().squeeze(1)  # (n,)
        return cls((len(lengths), max_length), indices.to(device, non_blocking=True))

    def pack(self, padded: Tensor) -> Tensor:
        """Select the tokens: (B, T, D) to (n, D)."""
        return padded.flatten(0, 1).index_select(0, self.indices)

    def pad(self, packed: Tensor) -> Tensor:
        """Restore the padded form: (n, D) to (B, T, D), zero where there is no token."""
        batch_size, max_length = self.shape
        padded = packed.new_zeros(batch_size * max_length, packed.shape[-1])  # (B * T, D)
        return padded.index_copy_(0, self.indices, packed).view(batch_size, max_length, -1)
