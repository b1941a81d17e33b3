"""The command line of `benchmarks.mutations`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import ROOT, Table, versions
from benchmarks.mutations.catalogue import MUTATIONS
from benchmarks.mutations.copies import Verdict, copied
from benchmarks.mutations.mutation import DoesNotApply, Mutation


def listed(mutations: Sequence[Mutation]) -> bool:
    """Prints the mutations; returns whether all of them apply to the current source."""
    sound = True
    for mutation in mutations:
        try:
            mutation.applied(ROOT)
        except DoesNotApply as error:
            sound = False
            print(f"{mutation}: DOES NOT APPLY: {error}")
        else:
            print(mutation)
    return sound


def measured(mutations: Sequence[Mutation], seconds: float) -> list[Verdict]:
    """The result of each mutation, in a temporary copy."""
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="llmbridge-mutations-") as folder:
        copy = copied(ROOT, Path(folder))
        print(f"tests run against {copy.imported()}", file=sys.stderr, flush=True)
        for mutation in mutations:
            verdicts.append(copy.meet(mutation, seconds))
            print(f"{mutation}: {verdicts[-1].says}", file=sys.stderr, flush=True)
    return verdicts


def main() -> int:
    """Runs the mutations; 1 if one escaped or could not be tested."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.mutations", description="Breaks each promise, and checks that a test catches it."
    )
    parser.add_argument("--only", default="", metavar="PROMISES", help="comma-separated, as P7,P13")
    parser.add_argument("--list", action="store_true", help="list them, and whether they still apply")
    parser.add_argument("--seconds", type=float, default=300.0, help="limit of the tests of a mutation")
    options = parser.parse_args()
    promises = {mutation.promise for mutation in MUTATIONS}
    wanted = {*filter(None, options.only.upper().split(","))} or promises
    if unknown := wanted - promises:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    mutations = [mutation for mutation in MUTATIONS if mutation.promise in wanted]
    if options.list:
        return 0 if listed(mutations) else 1
    if hasattr(os, "nice"):
        os.nice(10)  # it takes minutes, so other work comes first
    print(versions(), flush=True)
    verdicts = measured(mutations, options.seconds)
    caught = sum(verdict.caught for verdict in verdicts)
    rows = [
        [mutation.promise, mutation.breaks, verdict.says, f"{verdict.seconds:.0f} s"]
        for mutation, verdict in zip(mutations, verdicts, strict=True)
    ]
    notes = [f"{caught} of {len(verdicts)} caught by a test of the promise that passes without the change"]
    print(f"\n{Table('Mutations', ['promise', 'what is broken', 'caught by', 'time'], rows, notes=notes)}", end="")
    return 0 if caught == len(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
