"""llmbridge and its peers measured side by side: `python -m benchmarks.run_all`. Not part of the package."""
