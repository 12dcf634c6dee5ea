"""How long learning takes: evaluation, designs and, with --sparse, a large table. Last line: a JSON object.

    python benchmarks/metalearn.py [--sparse]

Times are CPU seconds of one thread, the errors those of a synthetic table of the paper's shape (87 x 99).
"""

import argparse
import json
import resource
from time import process_time

import numpy as np

from peppp.metalearn.completion import factorise
from peppp.metalearn.convex import relaxed_d_optimal
from peppp.metalearn.design import d_optimal
from peppp.metalearn.methods import PAPER_METHODS
from peppp.metalearn.threads import single_thread
from peppp.replay.loocv import SETTINGS, evaluate
from peppp.replay.slices import known_table
from peppp.replay.synthetic import synthetic_table


def timed(work, repeats: int = 1) -> float:
    started = process_time()
    for _ in range(repeats):
        work()
    return (process_time() - started) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sparse", action="store_true", help="complete a 100,000 x 10,000 matrix as well")
    arguments = parser.parse_args()
    known = known_table(synthetic_table(further=False))
    print(f"synthetic table: {known.errors.shape[0]} x {known.errors.shape[1]}, invented errors")
    result = {}
    result["loocv_cpu_s"] = timed(
        lambda: evaluate(
            known, settings=tuple(SETTINGS), methods=PAPER_METHODS, counts=range(1, 13), leave="row"
        )
    )
    print(f"six settings, five methods, up to 12 measurements: {result['loocv_cpu_s']:.1f} s")
    for setting in SETTINGS:
        seconds = timed(lambda s=setting: evaluate(known, settings=(s,), counts=range(1, 13), leave="row"))
        print(f"  {setting}: {seconds:.1f} s")
    Y = factorise(known.errors, 5)
    with single_thread():
        result["greedy_ms"] = 1e3 * timed(lambda: d_optimal(Y, 20), 100)
        result["convex_ms"] = 1e3 * timed(lambda: relaxed_d_optimal(Y, 20), 3)
    print(
        f"20 of 99 at rank 5: greedy {result['greedy_ms']:.2f} ms, by SLSQP {result['convex_ms']:.1f} ms"
    )
    if arguments.sparse:
        result |= sparse()
    print(json.dumps({name: round(value, 4) for name, value in result.items()}))


def sparse() -> dict[str, float]:
    """A planted matrix of rank 8, 1 % observed: 10 million entries."""
    from peppp.metalearn.sparse import complete_sparse

    n, d, rank, entries = 100_000, 10_000, 8, 10_000_000
    rng = np.random.default_rng(0)
    U = rng.normal(size=(n, rank)).astype(np.float32) / np.float32(rank**0.5)
    V = rng.normal(size=(d, rank)).astype(np.float32)

    def draw(count: int):
        i = rng.integers(n, size=count, dtype=np.int32)
        j = rng.integers(d, size=count, dtype=np.int32)
        values = np.empty(count, dtype=np.float32)
        for at in range(0, count, 1_000_000):
            part = slice(at, at + 1_000_000)
            values[part] = np.einsum("ek,ek->e", U[i[part]], V[j[part]])
        return i, j, values + np.float32(0.05) * rng.normal(size=count).astype(np.float32)

    i, j, values = draw(entries)
    iterations = 5
    started = process_time()
    left, right = complete_sparse(i, j, values, (n, d), rank=12, iterations=iterations)
    seconds = (process_time() - started) / iterations
    i, j, values = draw(200_000)
    error = np.linalg.norm(np.einsum("ek,ek->e", left[i], right[j]) - values) / np.linalg.norm(values)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"100,000 x 10,000, 10^7 entries: {seconds:.1f} s an iteration, {memory:.2f} GB, error {error:.3f}")
    return {"sparse_s_per_iteration": seconds, "sparse_gb": memory, "sparse_heldout_error": float(error)}


if __name__ == "__main__":
    main()
