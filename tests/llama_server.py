"""llama.cpp's own server over HTTP: `python -m tests.llama_server WEIGHTS PORT`; ends with its standard input."""

import sys

import psutil
from xllamacpp import CommonParams, Server


def main(weights: str, port: str) -> None:
    how = CommonParams()
    how.model.path, how.n_ctx, how.n_parallel, how.verbosity = weights, 8192, 4, -1
    how.model_alias = {"base", "adapter"}
    how.hostnames, how.port = ["127.0.0.1"], int(port)
    how.cpuparams.n_threads = how.cpuparams_batch.n_threads = psutil.cpu_count(logical=False) or 1
    server = Server(how)
    print("ready", flush=True)
    sys.stdin.read()
    del server


if __name__ == "__main__":
    main(*sys.argv[1:])
