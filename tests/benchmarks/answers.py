"""python tests/benchmarks/answers.py --json: how long answers take on this machine.

Load time, time to the first token, tokens a second and time of the whole answer, for a picture, text and voice: the
median of several rounds, warm, after one round that is not counted. Run it alone: two busy programs on two cores slow
each other down by more than half.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

EXAMPLES = ROOT / "assets" / "examples"


def ways_to_ask() -> dict[str, dict[str, Any]]:
    image = sorted(EXAMPLES.glob("*.jpg"))[0]
    speech = sorted(EXAMPLES.glob("*.wav"))[0]
    return {
        "image": {"question": "What is this?", "images": [image]},
        "image, spoken": {"images": [image], "audio": speech},
        "text": {"question": "Why is the sky blue? Answer in one sentence."},
        "voice": {"audio": speech},
    }


def timed(snapshots: Iterator[Any]) -> dict[str, float]:
    """Seconds to the first word and to the end, as the person who waits sees them."""
    start = time.perf_counter()
    first = None
    for answer in snapshots:
        if first is None and answer.text:
            first = time.perf_counter() - start
    whole = time.perf_counter() - start
    return {
        "first_token_seconds": first or whole,
        "answer_seconds": whole,
        "tokens": answer.tokens,
        "tokens_per_second": answer.tokens_per_second,
    }


def measure(preset: str, rounds: int) -> dict[str, Any]:
    start = time.perf_counter()
    from vlm import Settings, load_assistant  # the import is part of what a person waits for

    imported = time.perf_counter()
    assistant = load_assistant(preset)
    loaded = time.perf_counter()
    settings = Settings(max_new_tokens=48)
    results = {}
    for name, asked in ways_to_ask().items():
        measured = [timed(assistant.stream(**asked, settings=settings)) for _ in range(rounds + 1)][1:]
        results[name] = {key: statistics.median(each[key] for each in measured) for key in measured[0]}
    return {
        "model": assistant.description,
        "processor": platform.processor() or platform.machine(),
        "import_seconds": imported - start,
        "load_seconds": loaded - imported,
        "rounds": rounds,
        "answers": results,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="embedded")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON in place of a Markdown table")
    arguments = parser.parse_args()
    result = measure(arguments.preset, arguments.rounds)
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    print(
        f"{result['model']}; import {result['import_seconds']:.1f} s, load {result['load_seconds']:.1f} s\n"
    )
    print("| question | first token, s | whole answer, s | tokens | tokens a second |\n|---|---|---|---|---|")
    for name, row in result["answers"].items():
        figures = f"{row['first_token_seconds']:.2f} | {row['answer_seconds']:.2f} | {row['tokens']:.0f}"
        print(f"| {name} | {figures} | {row['tokens_per_second']:.0f} |")


if __name__ == "__main__":
    main()
