"""`python -m fuzz FOLDER TARGET...`: rows of a table, as the targets end."""

import argparse
from pathlib import Path

from fuzz import registry, runner
from fuzz.effort import Effort
from fuzz.runner import Report


def _row(found: Report) -> str:
    numbers = f"{found.inputs:,} | {found.loads:,} | {found.refusals:,} | {len(found.faults)}"
    return f"| {found.target} | {numbers} | {found.slowest:.2f} | {found.memory / 2**20:.0f} |"


def main() -> None:
    """Run targets one after another."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("targets", nargs="*", default=list(registry.TARGETS))
    parser.add_argument("--inputs", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=1e9, help="of each target")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    effort = Effort(inputs=given.inputs, seconds=given.seconds, seed=given.seed)
    for name in given.targets:
        found = runner.fuzz(registry.PLACES[name], given.folder / name, effort)
        print(_row(found), flush=True)
        for fault in found.faults:
            print(f"    {fault.input}: {fault.what}", flush=True)


if __name__ == "__main__":
    main()
