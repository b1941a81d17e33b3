"""How a service's report of an error becomes an error of llmbridge, in the order in which it goes through the modules.

`report`: one shape, from any of the shapes in which services report. `words`: the class that the report means, and
what to do about it. `waits`: how long the service asks to wait, also in an answer's headers. `service_errors`, beside
this folder, calls them and makes the error.
"""
