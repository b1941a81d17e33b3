"""One call, in reading order (docs/architecture.md draws it).

- `plan`: which models a chat may go to, and what may follow the first answer
- `route`: the way to one model: its key, URL and request, and what the calls of a client share
- `fresh_key`: the key where it comes from a function of the caller's
- `pipeline`: the call as far as it has been run: one blocking step, and the same for an event loop
- `attempts`: its requests, until one of them is answered
- `answer`: the items of that answer, from its bytes to how it ends
- `framing`: bytes as frames
- `assembly`: decoded items made whole, tool calls out of their pieces
- `reading`: how the answer is handed out, and what has been
- `question`: a call that is answered with one JSON document in place of a stream
"""
