"""Training in several processes that torchrun started, one per GPU.

    torchrun --nproc-per-node 4 -m qanet train cihp-r50c-512x384 --data CIHP

Every process loads its share of each batch. The random numbers of a sample depend on its position in the whole batch,
so the crops are the same for any number of processes.
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
    """The rank of this process, and the number of processes."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """The samples of a batch that this process loads; QanetError if the batch cannot be divided evenly."""
        if batch_size % self.size:
            raise QanetError(
                "the batch size is no multiple of the number of processes",
                expected=f"a multiple of {self.size}",
                got=batch_size,
                next_command=f"qanet train ... batch_size={batch_size // self.size * self.size or self.size}",
            )
        part = batch_size // self.size
        return slice(self.rank * part, (self.rank + 1) * part)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes; every process gets it."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def parallel(self, model: nn.Module, device: torch.device, sync_bn: bool) -> nn.Module:
        """The model with gradients averaged over the processes; the model itself if there is one process."""
        if self.size == 1:
            return model
        if sync_bn:
            if device.type != "cuda":
                raise QanetError("sync_bn needs GPUs", expected="cuda", got=device.type, next_command="sync_bn=false")
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return nn.parallel.DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def choose_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """The device of a name, "auto", "cpu", "cuda" or "cuda:N"; "auto" is a GPU if PyTorch sees one.

    Args:
        local_rank: number of this process on its machine: "auto" gives each process its own GPU.
    Raises:
        QanetError: no such device.
    """
    if name == "auto":
        name = f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise RuntimeError(f"{name}, with {torch.cuda.device_count()} GPUs that PyTorch sees")
        if device.type == "cuda":
            torch.cuda.set_device(device)
    except RuntimeError as error:
        message = str(error).splitlines()[0]
        raise QanetError("no such device", expected="auto, cpu, cuda or cuda:N", got=message) from error
    return device


def is_main_process() -> bool:
    """Whether this process reports results; known before the process group exists and after it ended."""
    return int(os.environ.get("RANK", 0)) == 0


def join_world(device_name: str = "auto") -> tuple[World, torch.device]:
    """Join the processes that torchrun started (nccl on GPUs, gloo on CPUs); a world of one otherwise.

    Args:
        device_name: as for `choose_device`.
    Raises:
        QanetError: no such device.
    """
    device = choose_device(device_name, int(os.environ.get("LOCAL_RANK", 0)))
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return World(), device
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return World(dist.get_rank(), dist.get_world_size()), device


def leave_world() -> None:
    """End the process group. Call it when no parallel model is left.

    A parallel model that outlives the group can deadlock: freeing it holds the interpreter's lock and waits for a
    thread of the group that waits for the lock (seen with gloo in one run of three).
    """
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()
