"""`python -m llmbridge` is the command `llmbridge`."""

import sys

from llmbridge.cli import main

if __name__ == "__main__":
    sys.exit(main())
