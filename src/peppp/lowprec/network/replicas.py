"""Replicas of one network in several processes (DistributedDataParallel) round alike.

Each process rounds its own copy of the weights. So that the copies stay equal, the seed of the random bits,
the step and the accumulators are those of the first process, before the first pass in which torch has made
the weights so.
"""

from typing import Any

import torch
from torch import distributed

from peppp.lowprec.network.state import LowPrecision


def agree(state: LowPrecision, parameters: Any) -> None:
    """Take the first process's seed, step and accumulators, at the first pass of a replica."""
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
