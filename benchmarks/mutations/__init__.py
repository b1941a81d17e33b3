"""Breaks the code in one place per promise, in a copy, and reports which test of that promise catches it.

    python -m benchmarks.mutations                  # all of them, about ten minutes
    python -m benchmarks.mutations --only P7,P13
    python -m benchmarks.mutations --list           # what there is, and whether it still applies

`catalogue` holds the changes, `copies` applies them and runs the tests, `watch` is loaded into those runs.
"""
