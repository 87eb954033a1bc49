"""Several processes, one run: what torchrun started, and what is shared between them.

    torchrun --nproc-per-node 4 -m qanet train cihp-r50c-512x384 --data CIHP

Every process loads its share of each batch. A sample's randomness comes from its place in the whole batch, so the
crops are the same for any number of processes.
"""

import gc
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from qanet.errors import QanetError


@dataclass(frozen=True)
class World:
    """This process among all: its rank, and how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """This process's part of a batch; QanetError where it cannot be divided evenly."""
        if batch_size % self.size:
            raise QanetError(
                "the batch does not divide among the processes",
                expected=f"a multiple of {self.size}",
                got=batch_size,
                next_command=f"qanet train ... batch_size={batch_size // self.size * self.size or self.size}",
            )
        part = batch_size // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, on every one of them."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def parallel(self, model: nn.Module, device: torch.device, sync_bn: bool) -> nn.Module:
        """The model whose backward pass averages gradients over the processes; the model itself when alone."""
        if self.size == 1:
            return model
        if sync_bn:
            if device.type != "cuda":
                raise QanetError("sync_bn needs GPUs", expected="cuda", got=device.type, next_command="sync_bn=false")
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return nn.parallel.DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def join_world(device_name: str = "auto") -> tuple[World, torch.device]:
    """Join the processes that torchrun started (nccl on GPUs, gloo on CPUs); a world of one otherwise.

    Args:
        device_name: "auto" takes a GPU where there is one, of several processes each its own; or "cpu", "cuda:1".
    Raises:
        QanetError: no such device.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if device_name == "auto":
        device_name = f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(device_name)
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise RuntimeError(f"{device_name}, with {torch.cuda.device_count()} GPUs that PyTorch sees")
        if device.type == "cuda":
            torch.cuda.set_device(device)
    except RuntimeError as error:
        message = str(error).splitlines()[0]
        raise QanetError("no such device", expected="auto, cpu, cuda or cuda:N", got=message) from error
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return World(), device
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return World(dist.get_rank(), dist.get_world_size()), device


def leave_world() -> None:
    """Let the other processes go. To be called when no parallel model is left.

    A model that outlives the group is freed with the interpreter's lock held, and waits for a thread of the group that
    waits for the lock: seen with gloo, one run in three.
    """
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()
