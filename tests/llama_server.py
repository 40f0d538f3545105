"""llama.cpp's own server over HTTP: `python -m tests.llama_server PORT WEIGHTS [MMPROJ]`; ends with its standard input."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from xllamacpp import CommonParams, Server


def main(port: str, weights: str, mmproj: str = "") -> None:
    how = CommonParams()
    how.model.path, how.mmproj.path = weights, mmproj
    how.n_ctx, how.n_parallel, how.verbosity = 8192, 4, -1
    how.model_alias = {"base", "adapter"}
    how.hostnames, how.port = ["127.0.0.1"], int(port)
    how.cpuparams.n_threads = how.cpuparams_batch.n_threads = psutil.cpu_count(logical=False) or 1
    server = Server(how)
    print("ready", flush=True)
    sys.stdin.read()
    del server


@contextmanager
def llama_server(*files: Path) -> Iterator[str]:
    """The address of one with these files, in a process of its own."""
    from tests.conftest import ROOT, free_port

    port = free_port()
    command = [sys.executable, "-m", "tests.llama_server", str(port), *map(str, files)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "ready\n"
        yield f"http://127.0.0.1:{port}/v1"
        process.stdin.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
