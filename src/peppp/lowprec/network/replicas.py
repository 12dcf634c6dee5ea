"""Keeps the replicas of a network in several processes (DistributedDataParallel) equal.

Each process rounds its own copy of the weights. To keep the copies equal, all processes take the seed of the
random bits, the step and the accumulators of the first process, in the first pass of a replica.
"""

from typing import Any

import torch
from torch import distributed

from peppp.lowprec.network.state import LowPrecision


def agree(state: LowPrecision, parameters: Any) -> None:
    """Take the first process's seed, step, weights and accumulators, in the first pass of a replica."""
    replica = getattr(torch.nn.parallel.DistributedDataParallel, "_active_ddp_module", None)
    if replica is None or state.replica is replica:
        return
    state.replica = replica
    clock, group = state.clock, replica.process_group
    first = distributed.get_global_rank(group, 0)
    numbers = torch.tensor([clock.seed % (1 << 63), clock.step], dtype=torch.int64)
    distributed.broadcast(numbers, first, group)
    clock.seed, clock.step = int(numbers[0]), int(numbers[1])
    for owner in parameters.owners():
        for parameter, accumulator in owner.accumulators.items():
            distributed.broadcast(parameter.data, first, group)
            distributed.broadcast(accumulator, first, group)
        owner.note_weights()
