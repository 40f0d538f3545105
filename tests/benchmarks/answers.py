"""python tests/benchmarks/answers.py --json answers.json: how fast a preset answers, and what memory that takes.

All of it as the page serves it, on this machine, beside llama.cpp's own server on the same file. What is compared takes
turns, and each figure is a median. Run it with nothing else running: two busy programs on two cores slow each other down
by more than half. A quarter of an hour; `--quick` tries the benchmark itself.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

EXAMPLES = ROOT / "assets" / "examples"
PICTURES = sorted(EXAMPLES.glob("*.jpg"))
RECORDINGS = sorted(EXAMPLES.glob("*.wav"))
QUESTIONS = (
    "Why is the sky blue?",
    "What is the capital of Australia, and why is it not Sydney?",
    "How do I boil an egg?",
    "Who wrote Hamlet?",
    "What is a prime number?",
    "Why do leaves fall in autumn?",
    "How far is the moon?",
    "What does a compiler do?",
)
FOLLOW_UP = "Can you say that in other words?"
LOOKS = ("What is in the picture?", "What color is it?")  # a question about a picture, and a follow-up
TOGETHER = 8
GIGABYTE = 1e9


@dataclass(frozen=True)
class Floor:
    """What is asked of a figure: at least, or at most, so much."""

    what: str
    least: float | None = None
    most: float | None = None

    def holds(self, value: float) -> bool:
        return value >= self.least if self.least is not None else value <= (self.most or 0.0)

    def __str__(self) -> str:
        return f"at least {self.least}" if self.least is not None else f"at most {self.most}"


FLOORS = {
    "engine_to_server": Floor("text answer, tokens a second: times that of xllamacpp.Server", least=0.95),
    "adapter_to_base": Floor("with the LoRA on: times that without", least=0.85),
    "text_first_seconds": Floor("first token, text question in a new conversation, s", most=0.7),
    "text_follow_up_seconds": Floor("first token, follow-up in the same one, s", most=0.4),
    "picture_first_seconds": Floor("first token, question about a picture, s", most=1.2),
    "picture_follow_up_seconds": Floor("first token, follow-up about it, s", most=0.5),
    "picture_read_ahead_seconds": Floor("first token, question about one that was read ahead, s", most=0.5),
    "import_and_load_seconds": Floor("import and load, files in the page cache, s", most=6.0),
    "eight_to_one": Floor(
        "eight text answers at once, tokens a second in all: times those of one", least=2.5
    ),
    "memory_gigabytes": Floor("memory of the process after mixed answers, GB", most=2.5),
    "memory_growth": Floor("memory at the end: times that after a quarter of the answers", most=1.03),
}


@dataclass(frozen=True)
class Size:
    """How much is measured: rounds of each comparison, tokens of an answer, answers whose memory is watched."""

    rounds: int = 7
    tokens: int = 96
    answers: int = 200


# In processes of their own


def load_seconds(preset: str, adapter: str) -> float:
    """From the start of Python to a model that answers."""
    program = "import sys; from vlm import load_assistant; load_assistant(*sys.argv[1:])"
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", program, preset, adapter], cwd=ROOT, check=True, capture_output=True
    )
    return time.perf_counter() - start


def memory_course(preset: str, adapter: str, answers: int) -> list[int]:
    """Bytes of a serving process after the start and then after each twentieth of the answers."""
    command = [sys.executable, __file__, "--preset", preset, "--adapter", adapter]
    done = subprocess.run([*command, "--course", str(answers)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def course(preset: str, adapter: str, answers: int) -> list[int]:
    """Text, a picture, a follow-up about it and speech by turns, several at once as the page has them."""
    import psutil

    from vlm import Settings, Turn, load_assistant

    assistant = load_assistant(preset, adapter)
    settings = Settings(max_new_tokens=32)

    def ask(number: int) -> None:
        question, picture = QUESTIONS[number % len(QUESTIONS)], PICTURES[number // 4 % len(PICTURES)]
        ways: tuple[dict[str, Any], ...] = (
            {"question": f"{question} ({number})"},
            {"question": LOOKS[0], "images": [picture]},
            {"question": LOOKS[1], "history": [Turn(LOOKS[0], "A thing.", (picture,))]},
            {"audio": RECORDINGS[number // 4 % len(RECORDINGS)]},
        )
        assistant.answer(**ways[number % len(ways)], settings=settings)

    sizes = [psutil.Process().memory_info().rss]
    step = max(1, answers // 20)
    with ThreadPoolExecutor(assistant.engine.parallel) as pool:
        for start in range(0, answers, step):
            list(pool.map(ask, range(start, start + step)))
            sizes.append(psutil.Process().memory_info().rss)
    assistant.close()
    return sizes


# Tokens a second


def tokens_of(engine: Any, ids: list[int], adapter: bool, sampling: Any) -> Iterator[int]:
    """Without what only says that there is none yet."""
    return (token for token in engine.stream([ids], adapter, sampling) if token is not None)


def speed(tokens: Iterable[int]) -> float:
    """Tokens a second, once the prompt is read."""
    times = [time.perf_counter() for _ in tokens]
    return (len(times) - 1) / (times[-1] - times[0])


class OwnServer:
    """llama.cpp's own server on the same file with as many threads, in a process of its own: in this one the threads of the
    two would wait for each other."""

    def __init__(self, weights: Path, context: int) -> None:
        command = [sys.executable, __file__, "--serve", str(weights), str(context)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def speed(self, ids: list[int], count: int) -> float:
        """Tokens a second, once the prompt is read."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps({"prompt": ids, "n_predict": count}) + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def serve(weights: str, context: str) -> None:
    """Answer the prompts on standard input, a line of JSON each, and print the speed of each answer."""
    import psutil
    from xllamacpp import CommonParams, Server

    how = CommonParams()
    how.model.path, how.n_ctx, how.n_parallel, how.verbosity = weights, int(context), 1, -1
    how.cpuparams.n_threads = how.cpuparams_batch.n_threads = psutil.cpu_count(logical=False) or 1
    server = Server(how)
    for line in sys.stdin:
        times: list[float] = []
        asked = json.loads(line) | {"temperature": 0, "ignore_eos": True, "stream": True}
        server.handle_completions(asked, lambda chunk, times=times: times.append(time.perf_counter()))
        times = times[: asked["n_predict"]]  # behind them comes a piece without a token
        print((len(times) - 1) / (times[-1] - times[0]), flush=True)


def engine_figures(assistant: Any, size: Size, own_server: OwnServer | None) -> dict[str, Any]:
    from vlm.engines import Sampling
    from vlm.model.prompts import PromptTurn, encode

    engine, endless = assistant.engine, Sampling(size.tokens)
    prompts = [encode(assistant.pipeline.writer.tokenizer, [PromptTurn(asked)], 0).ids for asked in QUESTIONS]
    whose: dict[str, Callable[[list[int]], float]] = {
        "base": lambda ids: speed(tokens_of(engine, ids, False, endless)),
        "adapter": lambda ids: speed(tokens_of(engine, ids, True, endless)),
    }
    if own_server:
        whose["server"] = lambda ids: own_server.speed(ids, size.tokens)
    speeds = by_turns(whose, prompts, size.rounds)
    together = by_turns(
        {
            "one": lambda ids: several(engine, [ids], endless),
            "eight": lambda ids: several(engine, prompts[:TOGETHER], endless),
        },
        prompts,
        max(1, size.rounds // 2),
    )
    ratios = {
        "adapter_to_base": ratio(speeds, "adapter", "base"),
        "eight_to_one": ratio(together, "eight", "one"),
    }
    if own_server:
        ratios["engine_to_server"] = ratio(speeds, "base", "server")
    medians = {
        f"{name}_tokens_per_second": statistics.median(each) for name, each in (speeds | together).items()
    }
    return ratios | medians


def several(engine: Any, prompts: Sequence[list[int]], sampling: Any) -> float:
    """Tokens a second of all the answers together, from the questions to the last token."""
    start = time.perf_counter()
    with ThreadPoolExecutor(len(prompts)) as pool:
        counts = list(pool.map(lambda ids: len(list(tokens_of(engine, ids, False, sampling))), prompts))
    return sum(counts) / (time.perf_counter() - start)


def by_turns(
    whose: dict[str, Callable[[list[int]], float]], prompts: Sequence[list[int]], rounds: int
) -> dict[str, list[float]]:
    """Each subject's figures; the subjects take turns, and the first round, which warms up, is not counted."""
    found: dict[str, list[float]] = {name: [] for name in whose}
    for turn in range(rounds + 1):
        for name, measure in whose.items():
            value = measure(prompts[turn % len(prompts)])
            if turn:
                found[name].append(value)
    return found


def ratio(found: dict[str, list[float]], one: str, other: str) -> float:
    """The median of the ratios of neighbours: what slows the machine down for a while slows both."""
    return statistics.median(a / b for a, b in zip(found[one], found[other], strict=True))


# What a person waits for


def first_seconds(assistant: Any, **asked: Any) -> tuple[float, str]:
    """Seconds to the first word, and the whole answer."""
    start, first, text = time.perf_counter(), 0.0, ""
    for answer in assistant.stream(**asked):
        text = answer.text
        first = first or (time.perf_counter() - start if text else 0.0)
    return first, text


def waiting_figures(assistant: Any, size: Size) -> dict[str, float]:
    from PIL import Image

    from vlm import Settings, Turn

    settings = Settings(max_new_tokens=size.tokens)
    found: dict[str, list[float]] = {
        name: [] for name in FLOORS if name.endswith(("first_seconds", "up_seconds", "ahead_seconds"))
    }
    first_seconds(assistant, question="Hello", settings=settings)  # as the page warms up
    first_seconds(assistant, question=LOOKS[0], images=[Image.new("RGB", (64, 64))], settings=settings)
    for turn in range(size.rounds):
        asked = QUESTIONS[turn % len(QUESTIONS)] + "?" * (turn // len(QUESTIONS))
        seconds, text = first_seconds(assistant, question=asked, settings=settings)
        found["text_first_seconds"].append(seconds)
        history = [Turn(asked, text)]
        seconds, _ = first_seconds(assistant, question=FOLLOW_UP, history=history, settings=settings)
        found["text_follow_up_seconds"].append(seconds)
        with Image.open(PICTURES[turn % len(PICTURES)]) as opened:
            picture = opened.convert("RGB").rotate(90 * (turn // len(PICTURES)))  # never seen before
        seconds, text = first_seconds(assistant, question=LOOKS[0], images=[picture], settings=settings)
        found["picture_first_seconds"].append(seconds)
        history = [Turn(LOOKS[0], text, (picture,))]
        seconds, _ = first_seconds(assistant, question=LOOKS[1], history=history, settings=settings)
        found["picture_follow_up_seconds"].append(seconds)
        another = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for _ in assistant.read_ahead([another]):  # as the page does, once it stands in the composer
            pass
        seconds, _ = first_seconds(assistant, question=LOOKS[0], images=[another], settings=settings)
        found["picture_read_ahead_seconds"].append(seconds)
    return {name: statistics.median(each) for name, each in found.items()}


# An adapter where the preset has none yet


def blank_adapter(preset: str, folder: Path) -> Path:
    """An adapter that takes as long as a trained one, and changes nothing: one matrix of each pair is zero."""
    import torch
    import yaml
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    from vlm.config import load_model_config
    from vlm.config_reader import to_dict
    from vlm.model.eyes import build_eyes
    from vlm.model.language import attach_lora
    from vlm.model.sizes import architecture

    config = load_model_config(preset)
    sizes, _ = architecture(config.language.weights)
    with torch.device("meta"):
        outline = attach_lora(AutoModelForCausalLM.from_config(sizes), config.lora)
    torch.manual_seed(0)  # the GGUF of a LoRA is kept by its content, and one is enough
    shapes = {name: value.shape for name, value in get_peft_model_state_dict(outline).items()}
    lora = {
        name: torch.zeros(shape) if "lora_B" in name else 0.02 * torch.randn(shape)
        for name, shape in shapes.items()
    }
    outline.peft_config["default"].save_pretrained(folder / "lora")
    described = folder / "lora" / "adapter_config.json"
    plain = json.loads(described.read_text(encoding="utf-8"))
    plain["target_modules"].sort()
    described.write_text(json.dumps(plain), encoding="utf-8")
    save_file(lora, folder / "lora" / "adapter_model.safetensors")
    connector = build_eyes(config, sizes.hidden_size).connector
    save_file(connector.state_dict(), folder / "projector.safetensors")
    whole = {"model": to_dict(config), "training": {}}
    (folder / "config.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    return folder


def adapter_of(preset: str, folder: Path) -> str:
    """The preset's own adapter where it has one that fits, else a blank one."""
    from vlm import UserError
    from vlm.model.adapter_fit import model_config_of

    try:
        _, found = model_config_of(preset, None)
    except UserError as problem:
        print(f"{problem}\nMeasured with an adapter that changes nothing.", file=sys.stderr)
        found = None
    return str(found or blank_adapter(preset, folder))


# All of it


def measure(preset: str, adapter: str, size: Size) -> dict[str, Any]:
    from vlm import load_assistant
    from vlm.weights.resolve import gguf_file

    loads = [load_seconds(preset, adapter) for _ in range(1 + min(3, size.rounds))][1:]
    sizes = memory_course(preset, adapter, size.answers)
    figures: dict[str, Any] = {
        "import_and_load_seconds": statistics.median(loads),
        "memory_gigabytes": sizes[-1] / GIGABYTE,
        "memory_growth": sizes[-1] / sizes[max(1, len(sizes) // 4)],
        "memory_course": sizes,
    }
    assistant = load_assistant(preset, adapter)
    figures |= waiting_figures(assistant, size)
    weights = gguf_file(assistant.config.language.weights) if assistant.engine.name == "llama.cpp" else None
    own_server = OwnServer(weights, assistant.engine.context) if weights else None
    figures |= engine_figures(assistant, size, own_server)
    if own_server:
        own_server.close()
    about = {"model": assistant.description, "processor": processor(), "python": platform.python_version()}
    return about | {"size": vars(size), "figures": figures}


def processor() -> str:
    """The processor's own name where Linux tells it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text(encoding="utf-8").splitlines() if told.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor()


def show(result: dict[str, Any]) -> None:
    figures = result["figures"]
    print(f"{result['model']}; {result['processor']}\n")
    print("| what | measured | floor | |\n|---|---|---|---|")
    for name, floor in FLOORS.items():
        if name in figures:
            verdict = "holds" if floor.holds(figures[name]) else "FAILS"
            print(f"| {floor.what} | {figures[name]:.2f} | {floor} | {verdict} |")
    print("\n| tokens a second | |\n|---|---|")
    for name, value in figures.items():
        if name.endswith("_tokens_per_second"):
            print(f"| {name.removesuffix('_tokens_per_second')} | {value:.1f} |")
    steps = " ".join(f"{size / GIGABYTE:.2f}" for size in figures["memory_course"])
    print(f"\nMemory from the start on, GB: {steps}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="embedded")
    parser.add_argument("--adapter", help="an adapter folder in place of the preset's own")
    parser.add_argument("--rounds", type=int, default=Size.rounds)
    parser.add_argument("--tokens", type=int, default=Size.tokens, help="of an answer")
    parser.add_argument("--answers", type=int, default=Size.answers, help="after which memory is looked at")
    parser.add_argument(
        "--quick", action="store_true", help="a little of everything, to try the benchmark itself"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--course", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*arguments.serve)
        return
    if arguments.course:
        print(json.dumps(course(arguments.preset, arguments.adapter, arguments.course)))
        return
    size = Size(1, 8, 4) if arguments.quick else Size(arguments.rounds, arguments.tokens, arguments.answers)
    with tempfile.TemporaryDirectory() as folder:
        adapter = arguments.adapter or adapter_of(arguments.preset, Path(folder))
        result = measure(arguments.preset, adapter, size)
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
