"""Breaks the code in one place per promise, in a copy, and reports which test of that promise catches it.

    python -m benchmarks.mutations                  # all of them, about ten minutes
    python -m benchmarks.mutations --only P7,P13
    python -m benchmarks.mutations --list           # list them, and whether they still apply

`catalogue` holds the changes, `copies` applies them and runs the tests, and `watch` is a pytest plugin for those runs.
"""
