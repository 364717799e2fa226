"""Measure mutants: `python -m tests.mutation` runs those of functions that have changed since, and
prints the score of each file."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from typing import TYPE_CHECKING

from tests.mutation.mutants import functions
from tests.mutation.score import FILES, ROOT, measure, sample, score, stale

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.mutation.mutants import FunctionSource

#: The share from which on the unit tests of a file are meant to notice everything.
STRICT = 90
#: A sample is small; the whole must do better.
SAMPLE_PERCENT = 50


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--all", action="store_true", help="also functions that have not changed")
    parser.add_argument(
        "--sample", type=int, metavar="N",
        help="run N mutants of each file's changed functions, and store nothing",
    )  # fmt: skip
    parser.add_argument("files", nargs="*", help="only files whose path contains one of these")
    options = parser.parse_args()
    low = False
    for file, (_, least) in FILES.items():
        if options.files and not any(part in file for part in options.files):
            continue
        chosen = functions(ROOT / file) if options.all else stale(file)
        if options.sample:
            # Where other tests notice much, a few mutants say little.
            if chosen and least >= STRICT:
                low |= sampled(file, chosen, options.sample) < SAMPLE_PERCENT
            continue
        if chosen:
            # A process of its own: each has its tests and modules.
            process = multiprocessing.get_context("spawn").Process(
                target=measure, args=(file, chosen)
            )
            process.start()
            process.join()
            low |= bool(process.exitcode)
        found = score(file)
        low |= found.percent < least
        print(f"{file}: {found.noticed} of {found.mutants} noticed, {found.percent} %")
        for survivor, why in found.survivors.items():
            print(f"  not noticed: {survivor}{f' ({why})' if why else ''}")
    return int(low)


def sampled(file: str, chosen: Sequence[FunctionSource], size: int) -> float:
    """How many of a few mutants are noticed, in percent."""
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    process = context.Process(target=sample, args=(file, chosen, size, results))
    process.start()
    process.join()
    ran, noticed = (0, 0) if process.exitcode else results.get()
    names = ", ".join(function.name for function in chosen)
    print(f"{file}: {noticed} of {ran} noticed in a sample of {names}")
    return 100.0 * noticed / ran if ran else 100.0 * (not process.exitcode)


if __name__ == "__main__":
    sys.exit(main())
