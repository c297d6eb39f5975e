"""The processes that train together: one for each device, as torchrun starts them, or this one alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class World:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def total(self, values: list[float], device: Any) -> list[float]:
        """Sums over all processes, of float64."""
        if self.size == 1:
            return values
        import torch
        from torch import distributed

        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        distributed.all_reduce(tensor)
        return [float(value) for value in tensor.tolist()]

    def share(self, value: Any) -> Any:
        """The first process's value, in all of them; waits for all."""
        if self.size == 1:
            return value
        from torch import distributed

        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]


@contextmanager
def joined(device: str = "auto") -> Iterator[World]:
    """The world that torchrun's environment tells of, for the length of a block; gloo on processors, NCCL on CUDA."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    import torch
    from torch import distributed

    begun = not distributed.is_initialized()
    if begun:
        distributed.init_process_group("nccl" if device != "cpu" and torch.cuda.is_available() else "gloo")
    try:
        yield World(distributed.get_rank(), distributed.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        if begun:
            distributed.destroy_process_group()
