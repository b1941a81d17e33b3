"""Compares llmbridge with its peers: `python -m benchmarks.run_all`. Not part of the package."""
