"""Loading against the step: what gathering, normalising and augmenting a batch take of a ResNet-8's step.

Data are in memory as bytes; each step loads its batch twice, without and with flip-crop, and trains on the
first. Medians over the steps of one run, so that a busy machine slows both sides alike.

    python benchmarks/loading.py > benchmarks/results/loading.json
"""

import json
import statistics
import time

import torch

from peppp import low_precision, low_precision_optimizer
from peppp.tasks import networks
from peppp.tasks.readers import load
from peppp.training.batches import Batches, shuffled
from peppp.training.measurement import provenance

BATCH, EPOCHS = 32, 3


def shares(side, configuration):
    dataset = load(f"digits?train=640&test=10&resolution={side}")
    part = Batches(dataset, "train", "cpu")
    network = networks.build("resnet8", classes=10).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)
    if configuration != "fp32":
        low_precision(network, configuration, seed=0)
        optimizer = low_precision_optimizer(optimizer, network)
    order, chance = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
    loads, augmented, steps = [], [], []
    for _ in range(EPOCHS):
        for indices in shuffled(len(part), BATCH, order, "cpu"):
            start = time.perf_counter()
            inputs, targets = part[indices], part.targets[indices]
            loads.append(time.perf_counter() - start)
            part.augmented(indices, chance)
            augmented.append(time.perf_counter() - start - loads[-1])
            middle = time.perf_counter()
            loss = torch.nn.functional.cross_entropy(network(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps.append(time.perf_counter() - middle + loads[-1])
    step = statistics.median(steps)
    return {
        "side": side,
        "configuration": configuration,
        "step_ms": round(1e3 * step, 2),
        "loading_share": round(statistics.median(loads) / step, 4),
        "augmented_share": round(statistics.median(augmented) / step, 4),
    }


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [shares(side, configuration) for side in (32, 64) for configuration in ("fp32", "1-4-1/1-6-7")]
    facts = {"benchmark": "loading", "network": "resnet8", "batch": BATCH, "threads": 1, "rows": rows}
    print(json.dumps(facts | {"made_with": provenance("cpu")}))


if __name__ == "__main__":
    main()
