"""python tests/benchmarks/kills.py --what server,training,prepare,convert,bootstrap,index --times 50 --json kills.json

Each command runs on tiny inputs in a process of its own, is killed with SIGKILL at a random moment between its start and
the time that an unbroken run takes, and is given again until it ends. What it wrote is then compared with what an unbroken
run wrote, byte for byte: `lost` is what is missing or different, `half_written` what bears a file's name after the kill
and cannot be read, `left` what an unbroken run does not leave. A server is killed while people upload pictures and vote:
`lost` are votes that it had kept, `left` the uploads of the dead one, and the next one must take its port.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from tests.conftest import EXAMPLES, free_port  # noqa: E402
from tests.tiny_commands import COMMANDS, make_server, run_server  # noqa: E402

FORK = multiprocessing.get_context("fork")  # the modules are there already, so that kills hit the work
PATIENCE = 300.0  # seconds that a run may take
SERVED_SECONDS = 2.0  # after the page stands
MOST_TIMES = 1000
# What tells of time, or is written on the way: it must be readable, and is not compared
NOT_PROMISED = (
    "log.jsonl",
    "checkpoint-*/*",
    "checkpoint-*/*/*",
    "checkpoint-*/*/*/*",
    ".*.lock",
    "report.json",
)


@dataclass
class Kill:
    """One kill and what became of it."""

    seconds: float
    ended: bool = False  # before it was killed
    half_written: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def started(function: Callable[..., Any], *arguments: Any) -> Any:
    def quietly() -> None:
        told = os.open(
            tempfile.gettempdir() + f"/kills-{os.getuid()}.log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC
        )
        os.dup2(told, 1)
        os.dup2(told, 2)
        function(*arguments)

    process = FORK.Process(target=quietly)
    process.start()
    return process


def done(function: Callable[..., Any], *arguments: Any) -> float:
    """Seconds that it took. Ends this program where it fails."""
    start, process = time.monotonic(), started(function, *arguments)
    process.join(PATIENCE)
    if process.exitcode != 0:
        process.kill()
        told = Path(tempfile.gettempdir(), f"kills-{os.getuid()}.log").read_text(errors="replace")
        sys.exit(f"{function.__name__} did not end well ({process.exitcode}):\n{told[-3000:]}")
    return time.monotonic() - start


def kill(process: Any, seconds: float) -> Kill:
    process.join(seconds)
    found = Kill(round(seconds, 2), process.exitcode is not None)
    process.kill()
    process.join()
    return found


def content_of(file: Path) -> bytes:
    """Its bytes; safetensors has its header's keys in any order."""
    content = file.read_bytes()
    if file.suffix != ".safetensors":
        return content
    end = 8 + int.from_bytes(content[:8], "little")
    return json.dumps(json.loads(content[8:end]), sort_keys=True).encode() + content[end:]


def written(folder: Path) -> dict[str, str]:
    """Name -> digest of each file; none where no bytes are promised."""
    found = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        free = any(file.match(pattern) for pattern in NOT_PROMISED)
        found[str(file.relative_to(folder))] = "" if free else hashlib.sha256(content_of(file)).hexdigest()
    return found


def unreadable(folder: Path, told: Any) -> None:
    """Tell the files that are named as whole ones and are not. In a process of its own: its threads must not be forked."""
    import gguf
    import pyarrow.parquet as parquet
    import yaml
    from PIL import Image
    from safetensors.torch import load_file

    readers: dict[str, Callable[[Path], Any]] = {
        ".json": lambda file: json.loads(file.read_text()),
        ".jsonl": lambda file: [json.loads(line) for line in file.read_text().split("\n")[:-1]],
        ".yaml": lambda file: yaml.safe_load(file.read_text())["training"],
        ".parquet": parquet.read_table,
        ".safetensors": load_file,
        ".gguf": gguf.GGUFReader,
        ".png": lambda file: Image.open(file).load(),
    }
    for file in sorted(path for path in folder.rglob("*") if path.suffix in readers):
        above = [each for each in file.parents if each.name.startswith("checkpoint-")]
        unfinished = any(not (each / "whole").exists() for each in above)
        if unfinished or any(each.startswith(".") for each in file.relative_to(folder).parts):
            continue
        try:
            readers[file.suffix](file)
        except Exception:  # whatever a reader makes of half a file
            told.send(str(file.relative_to(folder)))
    told.send("")


def half_written(folder: Path) -> list[str]:
    here, there = FORK.Pipe()
    done(unreadable, folder, there)
    return list(iter(here.recv, ""))


def kill_command(name: str, times: int, draw: random.Random, work: Path) -> tuple[float, list[Kill]]:
    """A folder of the same name each time: some files name it."""
    make, run = COMMANDS[name]
    inputs, folder = work / "inputs", work / "now"
    inputs.mkdir()
    done(make, inputs)

    def begin() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(inputs, folder)

    begin()
    seconds, expected = done(run, folder), written(folder)
    kills = []
    for _ in range(times):
        begin()
        found = kill(started(run, folder), draw.uniform(0, seconds))
        found.half_written = half_written(folder)
        done(run, folder)
        after = written(folder)
        found.lost = [each for each, digest in expected.items() if after.get(each) != digest]
        found.left = sorted(set(after) - set(expected))
        kills.append(found)
    return seconds, kills


@contextmanager
def visitors(port: int) -> Iterator[None]:
    """Uploads without end."""
    gone = threading.Event()

    def upload() -> None:
        while not gone.wait(0.02):
            with suppress(httpx.HTTPError), (EXAMPLES / "cat.jpg").open("rb") as picture:
                httpx.post(f"http://127.0.0.1:{port}/gradio_api/upload", files={"files": picture})

    thread = threading.Thread(target=upload)
    thread.start()
    try:
        yield
    finally:
        gone.set()
        thread.join()


def wait_until_up(port: int, process: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.is_alive():
        with suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                return
        time.sleep(0.05)
    sys.exit("The server did not come up.")


def kill_server(times: int, draw: random.Random, work: Path) -> tuple[float, list[Kill]]:
    folder, port, kept = work / "now", free_port(), set[str]()
    folder.mkdir()
    done(make_server, folder)
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    start, server = time.monotonic(), started(run_server, folder, port, writer)
    wait_until_up(port, server)
    seconds = time.monotonic() - start + SERVED_SECONDS
    kill(server, 0)
    kills = []
    for _ in range(times):
        shutil.rmtree(folder / "cache", ignore_errors=True)  # so that it is written again
        server = started(run_server, folder, port, writer)
        with visitors(port):
            found = kill(server, draw.uniform(0, seconds))
        with suppress(BlockingIOError):
            while told := os.read(reader, 1 << 16):
                kept |= {*told.decode().split()}
        found.half_written = half_written(folder)
        before = {*(folder / "uploads").glob("*")}
        server = started(run_server, folder, port, writer)
        wait_until_up(port, server)
        found.left = sorted(path.name for path in before if path.exists())
        found.left += [path.name for path in (folder / "cache").rglob("*.partial")]
        kill(server, 0)
        there = {file.stem for file in (folder / "votes").glob("*.parquet")}
        found.lost = sorted(kept - there)
        kills.append(found)
    return seconds, kills


def measure(name: str, times: int, seed: int) -> dict[str, Any]:
    draw = random.Random(f"{name} {seed}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work:
        begin = time.monotonic()
        if name == "server":
            seconds, kills = kill_server(times, draw, Path(work))
        else:
            seconds, kills = kill_command(name, times, draw, Path(work))
    spread = [each.seconds for each in kills]
    told: dict[str, Any] = {"what": name, "times": times, "unbroken_seconds": round(seconds, 2)}
    told |= {"killed_at": [min(spread), max(spread)], "had_ended": sum(each.ended for each in kills)}
    for fault in ("lost", "half_written", "left"):
        told[fault] = sum(bool(getattr(each, fault)) for each in kills)
    return told | {"took_seconds": round(time.monotonic() - begin), "kills": [asdict(each) for each in kills]}


def main() -> None:
    kinds = ["server", *COMMANDS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--what", default=",".join(kinds), help=f"of {', '.join(kinds)}, with commas between")
    parser.add_argument("--times", type=int, default=50, help="kills of each")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path, help="write what was found to this file as well")
    chosen = parser.parse_args()
    names = [name.strip() for name in chosen.what.split(",")]
    if unknown := sorted(set(names) - set(kinds)):
        parser.error(f"--what takes {', '.join(kinds)} ({', '.join(unknown)} was given)")
    if not 1 <= chosen.times <= MOST_TIMES:
        parser.error(f"--times is 1 to {MOST_TIMES} ({chosen.times} was given)")
    results = []
    for name in names:
        results.append(measure(name, chosen.times, chosen.seed))
        print(json.dumps({key: value for key, value in results[-1].items() if key != "kills"}), flush=True)
        for each in results[-1]["kills"]:
            if each["lost"] or each["half_written"] or each["left"]:
                print(json.dumps(each), flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    sys.exit(any(result["lost"] or result["half_written"] or result["left"] for result in results))


if __name__ == "__main__":
    main()
