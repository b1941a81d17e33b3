"""One call, in reading order (docs/architecture.md draws it).

- `plan`: the models that a chat may go to, and the requests that may follow the first answer
- `route`: the way to one model (key, URL, request), and the state that the calls of a client share
- `fresh_key`: the key from a function of the caller's
- `pipeline`: the call as far as it has been run: one blocking step, and the same for an event loop
- `attempts`: its requests, until one of them is answered
- `answer`: the items of that answer, from its bytes to how it ends
- `framing`: bytes to frames
- `assembly`: repairs decoded items, and assembles tool calls from their pieces
- `reading`: hands out the answer, and remembers it
- `question`: a call that is answered with one JSON document instead of a stream
"""
