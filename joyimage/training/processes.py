"""The processes of a run, one for each card: as accelerate or torchrun start them, or one alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Processes:
    """`index` of `count`. The network is frozen, so all they have to agree on are the adapter's gradients.

    `device` is where they work, by default their GPUs where there are any. The first to be made in a process decides.
    """

    def __init__(self, device: torch.device | str | None = None):
        from accelerate import PartialState

        kind = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")).type
        self._state = PartialState(cpu=kind == "cpu")  # which else looks for GPUs alone, and leaves each by itself
        self.index, self.count = self._state.process_index, self._state.num_processes

    @property
    def first(self) -> bool:
        """Whether this one writes the files."""
        return self.index == 0

    @property
    def device(self) -> torch.device:
        """The card of this process, or the processor."""
        device = self._state.device
        assert device is not None  # once it is made
        return device

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Put the mean over all processes in the place of each tensor, in one exchange."""
        if self.count == 1 or not tensors:
            return
        from accelerate.utils import reduce

        flat = reduce(torch.cat([tensor.flatten() for tensor in tensors]), "mean")
        assert isinstance(flat, Tensor)
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def wait(self) -> None:
        self._state.wait_for_everyone()
