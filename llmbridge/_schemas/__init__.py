"""JSON schemas from Python types, and Python values from JSON. Pure, and imported only when a schema or tool is used.

In reading order; each module imports only those named on its right:

    hints        what a type hint is: unwrapped, its kind, a class's fields; the plain types
    check        whether JSON fits a schema, and a schema the standard; the table of its keywords; `$ref`s
    jsonable     a Python value as JSON: defaults, results of tools
    build        a type hint or a function's parameters as a schema, described by docstrings   hints, check, jsonable
    conversion   JSON as the value that a type hint asks for                                   hints, check, build
    signatures   what a tool takes, from its function or class                                 all of these but jsonable
    subsets      a schema as OpenAI's strict mode and single services take it                  check
    partial_json  the value so far of JSON that is still arriving
"""
