"""Runs llama.cpp's own server on 127.0.0.1 until standard input ends: `serve.py MODEL embedding|chat CONTEXT`."""

from __future__ import annotations

import sys

import xllamacpp


def main(model: str, purpose: str, context: str) -> None:
    """Prints the address once the model is loaded.

    Args:
        model: The path of a GGUF file.
        purpose: "chat" or "embedding".
        context: Tokens in each of the two slots.
    """
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {"smollm2"}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = 2
    params.n_ctx = 2 * int(context)
    params.kv_unified = False
    params.use_jinja = True
    params.endpoint_slots = params.endpoint_metrics = True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
    if purpose == "embedding":
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
