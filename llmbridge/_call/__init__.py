"""One call, in reading order."""
