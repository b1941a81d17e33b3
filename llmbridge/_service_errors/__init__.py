"""Turns a service's error report into an error of llmbridge; in the order in which the modules are used:

`report` normalizes it from any service's format. `words` finds the class of the error, and what to do about it. `waits`
finds how long to wait, also in an answer's headers. `service_errors`, beside this folder, calls them and makes the
error.
"""
