"""In a notebook: answers that show themselves while they come, readable objects, short errors, a working stop button.

Loaded only where a notebook asks for it. Nothing here imports IPython or marimo: they are used where they are loaded,
and a frontend gets plain mappings of MIME types.
"""
