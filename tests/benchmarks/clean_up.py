"""python tests/benchmarks/clean_up.py --json clean-up.json: what the clean-up makes of keywords, and of whole answers.

Answers that people gave to validation questions are the drafts: as they are, where nothing should change, and as
keywords, which should become a sentence with the same meaning. Ten minutes on two cores, with the data of
training.prepare.
"""

import argparse
import json
import random
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from training.data import Row, read_rows  # noqa: E402
from training.scores.metrics import share_of  # noqa: E402
from vlm import Assistant, load_assistant  # noqa: E402
from vlm.chat.answer import Answer, Settings  # noqa: E402
from vlm.chat.clean_up import is_whole  # noqa: E402
from vlm.chat.tidy import tidy  # noqa: E402
from vlm.chat.words import to_keywords  # noqa: E402

SEED = 15
FEWEST_WORDS = 3  # keywords of a sentence; "gray" and "brown dog" are left as they are by design


def questions(folder: Path, count: int) -> list[Row]:
    """Validation questions whose answers are sentences, drawn with a fixed seed."""
    rows = [
        row for row in read_rows(folder, "validation") if len(to_keywords(row.answer).split()) >= FEWEST_WORDS
    ]
    by_text = list({(row.question, row.answer): row for row in rows}.values())
    return random.Random(SEED).sample(by_text, min(count, len(by_text)))


def cleaned(assistant: Assistant, question: str, draft: str) -> Answer:
    answer = Answer(draft=draft, text=tidy(draft))
    steps = assistant.pipeline.clean_up(answer, question, Settings())
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def measure(assistant: Assistant, rows: list[Row]) -> dict[str, object]:
    keywords = [
        (to_keywords(row.answer), cleaned(assistant, row.question, to_keywords(row.answer))) for row in rows
    ]
    whole = [cleaned(assistant, row.question, row.answer) for row in rows]
    sentences = sum(is_whole(answer.text) for _, answer in keywords)
    kept = sum(answer.text == tidy(row.answer) for answer, row in zip(whole, rows, strict=True))
    verdicts = Counter((answer.clean_up or "").partition(":")[0] for _, answer in keywords)
    return {
        "questions": len(rows),
        "keywords that became a sentence": share_of(sentences, len(rows))._asdict(),
        "verdicts": dict(verdicts),
        "whole answers left as they are": share_of(kept, len(rows))._asdict(),
        "examples": [
            {"keywords": words, "answer": answer.text, "verdict": answer.clean_up}
            for words, answer in keywords
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "data" / "embedded", help="of training.prepare")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--json", type=Path, help="write all of it there")
    arguments = parser.parse_args()
    found = measure(load_assistant(), questions(arguments.folder, arguments.count))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, value in found.items():
        if name != "examples":
            print(f"{name}: {value}")


if __name__ == "__main__":
    main()
