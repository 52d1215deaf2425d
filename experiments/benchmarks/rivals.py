"""Rival models on data of a known transition: a table, and what should not be.

    python -m experiments.benchmarks.rivals --seeds 1 2 3
    python -m experiments.benchmarks.rivals --posterior nuts --truths ornstein_uhlenbeck

Numbers are in nats; the process exits with 1 where the comparison missed the truth. Without
`--posterior` every rival is scored at its posterior mode: some 2 s a truth after compiling.
"""

import argparse
import sys
import time

import jax


def main() -> int:
    """Print a table for each truth and seed."""
    jax.config.update("jax_enable_x64", True)
    from bayesfilt.infer.fit import fit
    from bayesfilt.infer.models import MODELS
    from bayesfilt.infer.rivals import rivals_on_matched_data

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--truths", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--posterior", choices=("mode", "svi", "nuts"), default="mode")
    settings = parser.parse_args()

    def fit_one(key, model, streams):
        return fit(key, model, streams, method=settings.posterior)

    missed = 0
    for seed in settings.seeds:
        for truth in settings.truths:
            began = time.perf_counter()
            found = rivals_on_matched_data(
                jax.random.key(seed),
                truth,
                fit_one=None if settings.posterior == "mode" else fit_one,
            )
            missed += bool(found.surprises)
            seconds = time.perf_counter() - began
            print(f"\nseed {seed}, truth {truth} ({seconds:.1f} s)")
            for row in found.comparison.of_layer():
                loss = f"{row.difference:12.1f} +- {row.standard_error:<10.1f}"
                weight = f"weight {row.stacking_weight:.2f}"
                print(f"  {row.name:18}{loss}{weight}  {row.verdict}", *row.failures, sep="  ")
            for surprise in found.surprises:
                print(f"  !! {surprise}")
    total = len(settings.seeds) * len(settings.truths)
    print(f"\n{total - missed} of {total} truths found")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
