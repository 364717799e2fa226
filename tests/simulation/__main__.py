"""Simulate: `python -m tests.simulation` runs many seeds, `--seed N` one of them with its story."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter

from tests.simulation.simulation import Simulation
from tests.simulation.situations import missed

SEEDS = 2000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this seed only, and print its story")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many (default %(default)s)")
    parser.add_argument("--keep-going", action="store_true", help="do not end at a failure")
    options = parser.parse_args()
    if options.seed is not None:
        return story(options.seed)
    return sweep(range(options.first, options.first + options.seeds), options)


def story(seed: int) -> int:
    simulation = Simulation(seed)
    try:
        simulation.run()
    except Exception:  # noqa: BLE001 - whatever ends a seed has its story
        print("\n".join(simulation.story))
        traceback.print_exc()
        return 1
    print("\n".join(simulation.story))
    print("reached: " + ", ".join(sorted(simulation.reached)))
    return 0


def sweep(seeds: range, options: argparse.Namespace) -> int:
    reached: Counter[str] = Counter()
    runs = failed = 0
    began = time.monotonic()
    for seed in seeds:
        simulation = Simulation(seed)
        try:
            simulation.run()
        except Exception as error:  # noqa: BLE001 - the other seeds go on
            failed += 1
            print(f"seed {seed} failed: {type(error).__name__}: {str(error)[:300]}")
            print(f"its story: python -m tests.simulation --seed {seed}")
            if not options.keep_going:
                return 1
        reached += simulation.reached
        runs += simulation.runs
    never = missed(reached)
    seconds = time.monotonic() - began
    print(f"{len(seeds)} seeds, {runs} runs, {failed} failed, {seconds:.0f} s")
    for situation in sorted(reached):
        print(f"{reached[situation]:8} times: {situation}")
    for situation in never:
        print(f"never reached: {situation}")
    return int(bool(failed or never))


if __name__ == "__main__":
    sys.exit(main())
