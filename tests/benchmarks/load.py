"""python tests/benchmarks/load.py --engine llama.cpp --users 1 5 20 --minutes 2 --json load.json --plot load.png

Simulated people talk to a page on this machine, over its API: they think, ask in words, with pictures and by voice, and
read. Each question holds a number that no other has: a number of somebody else in an answer means that two conversations
were mixed. The page runs in a process of its own; `--engine remote` puts llama.cpp's own server behind it, or the server
that VLM_REMOTE names, which is asked about pictures as well. Run it with nothing else running.
"""

import argparse
import asyncio
import base64
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from PIL import Image

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

EXAMPLES = ROOT / "assets" / "examples"
PICTURES = sorted(EXAMPLES.glob("*.jpg"))
RECORDINGS = sorted(EXAMPLES.glob("*.wav"))
ENGINES = ("llama.cpp", "torch", "remote")
KINDS = {"text": 5, "picture": 3, "voice": 1}  # how often each is asked
ANSWER_TOKENS = 64
PATIENCE = 300.0  # seconds that a person waits for an answer
START_SECONDS = 300.0
MOST_USERS, MOST_MINUTES = 200, 60
GIGABYTE = 1e9


@dataclass
class Asked:
    """One question and what became of it."""

    user: int
    kind: str
    number: str
    seconds: float = 0.0
    first_seconds: float = 0.0
    text: str = ""
    tokens: int = 0
    outcome: str = "lost"  # answered | refused (too many were waiting) | lost
    problem: str = ""


@dataclass
class Person:
    """Thinks, asks, and sends along what was said last."""

    user: int
    draw: random.Random
    kinds: Sequence[str]
    said: list[dict[str, Any]] = field(default_factory=list)

    def question(self, number: str) -> tuple[str, list[dict[str, Any]]]:
        """Its kind and the messages."""
        (kind,) = self.draw.choices(self.kinds, [KINDS[each] for each in self.kinds])
        number_told = f"My number is {number}."
        if kind == "text":
            asked: dict[str, Any] = {"role": "user", "content": f"{number_told} What is my number?"}
            return kind, [*self.said, asked]
        if kind == "voice":
            sound = base64.b64encode(self.draw.choice(RECORDINGS).read_bytes()).decode()
            part = {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}}
            return kind, [{"role": "user", "content": [{"type": "text", "text": number_told}, part]}]
        part = {"type": "image_url", "image_url": {"url": self._picture()}}
        asked = {"role": "user", "content": [{"type": "text", "text": "What is in the picture?"}, part]}
        told = [{"role": "user", "content": number_told}, {"role": "assistant", "content": "I see."}]
        return kind, [*told, asked]

    def _picture(self) -> str:
        """A picture that nobody else has: no page may answer from what it saw before."""
        with Image.open(self.draw.choice(PICTURES)) as opened:
            picture = opened.convert("RGB").resize((320, 320)).rotate(self.draw.uniform(0, 360))
        file = BytesIO()
        picture.save(file, "JPEG")
        return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


async def ask(client: httpx.AsyncClient, model: str, asked: Asked, messages: list[dict[str, Any]]) -> None:
    """Read the answer's stream into `asked`."""
    body = {"model": model, "messages": messages, "max_tokens": ANSWER_TOKENS, "stream": True}
    body |= {"stream_options": {"include_usage": True}}
    start = time.perf_counter()
    try:
        async with client.stream("POST", "chat/completions", json=body) as response:
            if response.status_code != httpx.codes.OK:
                await response.aread()
                asked.outcome = "refused" if response.status_code == 429 else "lost"
                asked.problem = response.text[:200]
                return
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    _take(asked, json.loads(line.removeprefix("data: ")), time.perf_counter() - start)
    except httpx.HTTPError as error:
        asked.problem = repr(error)
    asked.seconds = time.perf_counter() - start


def _take(asked: Asked, chunk: dict[str, Any], seconds: float) -> None:
    if "error" in chunk:  # after the stream began, as while a recording was heard
        asked.problem = chunk["error"]["message"]
        if chunk["error"]["type"] == "rate_limit_error":
            asked.outcome = "refused"
    for choice in chunk.get("choices", ()):
        if piece := choice["delta"].get("content"):
            asked.first_seconds = asked.first_seconds or seconds
            asked.text += piece
        if choice["finish_reason"] and asked.text:
            asked.outcome = "answered"
    asked.tokens = (chunk.get("usage") or {}).get("completion_tokens", asked.tokens)


async def live(
    person: Person, client: httpx.AsyncClient, model: str, think: float, until: float
) -> list[Asked]:
    """What one person asked until the time was up."""
    done = []
    while True:
        await asyncio.sleep(min(person.draw.expovariate(1 / think), 4 * think))
        if time.monotonic() > until:
            return done
        number = f"{len(done) % 10}{person.user:03}{person.draw.randrange(1000):03}"
        kind, messages = person.question(number)
        asked = Asked(person.user, kind, number)
        await ask(client, model, asked, messages)
        done.append(asked)
        if kind == "text" and asked.outcome == "answered":
            person.said = [messages[-1], {"role": "assistant", "content": asked.text}]


async def crowd(address: str, users: int, minutes: float, think: float, kinds: Sequence[str]) -> list[Asked]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=PATIENCE, limits=limits) as client:
        model = (await client.get("models")).json()["data"][0]["id"]
        until = time.monotonic() + 60 * minutes
        people = [Person(user, random.Random(user), kinds) for user in range(users)]
        lives = await asyncio.gather(*(live(each, client, model, think, until) for each in people))
    return [asked for each in lives for asked in each]


def figures(asked: Sequence[Asked], users: int, seconds: float, memory: Sequence[int]) -> dict[str, Any]:
    answered = [each for each in asked if each.outcome == "answered"]
    whose = {each.number: each.user for each in asked}
    wrong = [
        each
        for each in answered
        if any(number in each.text and user != each.user for number, user in whose.items())
    ]
    texts = [each for each in answered if each.kind == "text"]
    problems = sorted({each.problem for each in asked if each.outcome == "lost"})
    return {
        "users": users,
        "seconds": round(seconds, 1),
        "asked": len(asked),
        "answered": len(answered),
        "refused": sum(each.outcome == "refused" for each in asked),
        "lost": sum(each.outcome == "lost" for each in asked),
        "problems": problems[:5],
        "wrong": len(wrong),
        # that a number comes back at all shows that a wrong one would be seen
        "own_number_told": _share(sum(each.number in each.text for each in texts), len(texts)),
        "kinds": {kind: _waits([each for each in answered if each.kind == kind]) for kind in KINDS},
        **_waits(answered),
        "tokens_per_second": round(sum(each.tokens for each in answered) / seconds, 2),
        "machine_seconds_per_answer": round(seconds / len(answered), 2) if answered else None,
        "memory_gigabytes": round(max(memory) / GIGABYTE, 2),
        "memory_gigabytes_in_the_first_half": round(max(memory[: len(memory) // 2 + 1]) / GIGABYTE, 2),
    }


def _waits(answered: Sequence[Asked]) -> dict[str, float]:
    """Seconds to the whole answer and to its first words, for one in two and for nineteen in twenty."""
    if len(answered) < 2:
        return {}
    found = {}
    for name in ("seconds", "first_seconds"):
        cuts = statistics.quantiles([getattr(each, name) for each in answered], n=20, method="inclusive")
        found |= {f"{name}_p50": round(cuts[9], 2), f"{name}_p95": round(cuts[18], 2)}
    return found


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 3) if whole else None


class Memory:
    """What the processes hold, looked at every second."""

    def __init__(self, processes: Sequence[subprocess.Popen[Any]]) -> None:
        self.processes, self.held = [psutil.Process(each.pid) for each in processes], list[int]()

    async def watch(self) -> None:
        while True:
            all_of_them = [each for one in self.processes for each in (one, *one.children(recursive=True))]
            self.held.append(sum(each.memory_info().rss for each in all_of_them))
            await asyncio.sleep(1)


@contextmanager
def program(*command: str, **environment: str) -> Iterator[subprocess.Popen[Any]]:
    """Ends with the block."""
    started = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield started
    finally:
        started.terminate()
        started.wait(30)


@contextmanager
def page(engine: str) -> Iterator[tuple[str, list[subprocess.Popen[Any]]]]:
    """The API of a page with this engine, and the processes behind it."""
    port = free_port()
    environment = {"HOST": "127.0.0.1", "PORT": str(port)}
    with ExitStack() as stack:
        processes = []
        if engine == "remote":
            environment["VLM_PRESET"] = "remote"
            if "VLM_REMOTE" not in os.environ:
                server, environment["VLM_REMOTE"] = stack.enter_context(own_server())
                processes.append(server)
        else:
            preset = yaml.safe_load((ROOT / "vlm" / "presets" / "embedded.yaml").read_text())
            preset["language"]["engine"] = engine
            file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "loaded.yaml"
            file.write_text(yaml.safe_dump(preset))
            environment["VLM_PRESET"] = str(file)
        processes.append(stack.enter_context(program("app.py", **environment)))
        yield wait_for(f"http://127.0.0.1:{port}/v1"), processes


@contextmanager
def own_server() -> Iterator[tuple[subprocess.Popen[Any], str]]:
    """llama.cpp's own server with the language model of `embedded`, and its address."""
    from vlm.weights.resolve import gguf_file

    weights, port = str(gguf_file("qwen2.5-coder-1.5b-instruct")), free_port()
    with program("-m", "tests.llama_server", str(port), weights) as server:
        yield server, wait_for(f"http://127.0.0.1:{port}/v1")


def wait_for(address: str) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{address}/models", timeout=5).raise_for_status()
            return address
        except httpx.HTTPError:
            time.sleep(0.5)
    sys.exit(f"{address} did not come up within {START_SECONDS:g} seconds.")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


async def measure(
    address: str,
    processes: Sequence[subprocess.Popen[Any]],
    users: int,
    minutes: float,
    think: float,
    kinds: list[str],
) -> dict[str, Any]:
    memory = Memory(processes)
    watching = asyncio.create_task(memory.watch())
    start = time.perf_counter()
    asked = await crowd(address, users, minutes, think, kinds)
    seconds = time.perf_counter() - start
    watching.cancel()
    return figures(asked, users, seconds, memory.held)


def plot(result: dict[str, Any], file: Path) -> None:
    """What more users cost: waiting, machine time and memory."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    levels = result["levels"]
    users = [level["users"] for level in levels]
    drawn = (
        ("seconds to the whole answer", {"half of them": "seconds_p50", "19 in 20": "seconds_p95"}),
        ("tokens a second, all together", {"tokens": "tokens_per_second"}),
        ("seconds of the machine an answer", {"seconds": "machine_seconds_per_answer"}),
        ("memory, GB", {"memory": "memory_gigabytes"}),
    )
    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6), layout="constrained")
    for axis, (title, lines) in zip(axes.flat, drawn, strict=True):
        for label, name in lines.items():
            axis.plot(users, [level.get(name) for level in levels], marker="o", label=label)
        axis.set(title=title, xlabel="users", xticks=users, ylim=(0, 1.05 * axis.get_ylim()[1]))
        if len(lines) > 1:
            axis.legend()
    figure.suptitle(f"engine {result['engine']}, {result['think']:g} s of thinking between questions")
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=ENGINES, default="llama.cpp")
    parser.add_argument("--users", type=int, nargs="+", default=[5], help="one run for each number")
    parser.add_argument("--minutes", type=float, default=1.0, help="of each run")
    parser.add_argument("--think", type=float, default=10.0, help="mean seconds between answer and question")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--plot", type=Path, help="draw them into this file")
    chosen = parser.parse_args()
    if max(chosen.users) > MOST_USERS or min(chosen.users) < 1 or not 0 < chosen.minutes <= MOST_MINUTES:
        parser.error(f"1 to {MOST_USERS} users and at most {MOST_MINUTES} minutes")
    blind = chosen.engine == "remote" and "VLM_REMOTE" not in os.environ
    kinds = [
        kind for kind in KINDS if not (blind and kind == "picture")
    ]  # llama.cpp's server has no eyes here
    result = {"engine": chosen.engine, "think": chosen.think, "kinds": kinds, "levels": []}
    with page(chosen.engine) as (address, processes):
        for users in chosen.users:
            level = asyncio.run(measure(address, processes, users, chosen.minutes, chosen.think, kinds))
            result["levels"].append(level)
            print(json.dumps(level), flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if chosen.plot:
        plot(result, chosen.plot)


if __name__ == "__main__":
    main()
