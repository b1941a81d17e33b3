"""JSON schemas from Python types, and Python values from JSON. No I/O; imported only when a schema or tool is used.

In reading order; each module imports only those named on its right:

    hints        type hints unwrapped and classified, the fields of classes, the plain types
    check        validates JSON against a schema, and a schema against the standard; keywords, `$ref`s
    jsonable     Python values to JSON: defaults, results of tools
    build        a type hint or a function's parameters to a schema, described by docstrings   hints, check, jsonable
    conversion   JSON to the value that a type hint describes                                  hints, check, build
    signatures   the schema of a tool, from its function or class                              all of these but jsonable
    subsets      rewrites a schema for OpenAI's strict mode and for single services            check
    partial_json  the value so far of JSON that is still arriving
"""
