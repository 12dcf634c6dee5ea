"""Measure how long evaluation and designs take. The last printed line is a JSON object.

    python benchmarks/metalearn.py

Times are CPU seconds of one thread. The errors come from a synthetic table of the paper's shape (87 x 99).
"""

import argparse
import json
from time import process_time

from peppp.evaluate.evaluation import evaluate
from peppp.evaluate.leave_one_out import SETTINGS
from peppp.learn.completion import factorise
from peppp.learn.design import d_optimal
from peppp.learn.methods import PAPER_METHODS
from peppp.learn.threads import single_thread
from peppp.paper.convex import relaxed_d_optimal
from peppp.paper.synthetic import synthetic_table
from peppp.table.measured import error_matrix


def timed(work, repeats: int = 1) -> float:
    started = process_time()
    for _ in range(repeats):
        work()
    return (process_time() - started) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    known = error_matrix(synthetic_table(further=False))
    print(f"synthetic table: {known.values.shape[0]} x {known.values.shape[1]}, invented errors")
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
    Y = factorise(known.values, 5)
    with single_thread():
        result["greedy_ms"] = 1e3 * timed(lambda: d_optimal(Y, 20), 100)
        result["convex_ms"] = 1e3 * timed(lambda: relaxed_d_optimal(Y, 20), 3)
    print(f"20 of 99 at rank 5: greedy {result['greedy_ms']:.2f} ms, by SLSQP {result['convex_ms']:.1f} ms")
    print(json.dumps({name: round(value, 4) for name, value in result.items()}))


if __name__ == "__main__":
    main()
