"""python -m training.compare A.json B.json

Compares two result files of training.evaluate (--output or --json) over the same questions, in any order: each measure of
both, their difference (B less A) with its 95 % interval, McNemar's exact p for right and wrong, and the questions where
only one is right. What the clean-up does to drafts stands in each result file itself.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.scores.items import Item
from training.scores.measures import differences
from training.scores.metrics import mcnemar
from training.scores.results import read_result
from vlm.errors import UserError
from vlm.terminal import command, to_json


def paired(first: Sequence[Item], second: Sequence[Item]) -> list[tuple[Item, Item]]:
    """The two items of each question, in the order of the first; an error where only one has a question."""
    left, right = _by_question(first), _by_question(second)
    only = len(left.keys() - right.keys()), len(right.keys() - left.keys())
    if any(only):
        raise UserError(
            f"The files do not hold the same questions: {only[0]} are only in the first and {only[1]} only in the "
            "second. Make both with the same --data, --split, --task and --limit."
        )
    return [(item, right[key]) for key, item in left.items()]


def _by_question(items: Sequence[Item]) -> dict[tuple[str, str, str, int], Item]:
    """By source, picture and question; where one is asked twice, by how often it came before."""
    seen: Counter[tuple[str, str, str]] = Counter()
    found = {}
    for item in items:
        key = (item.get("source", ""), item["picture"], item["question"])
        found[(*key, seen[key])] = item
        seen[key] += 1
    return found


def compare(first: Sequence[Item], second: Sequence[Item]) -> dict[str, Any]:
    """Items of two results -> measures, right and wrong, examples; all JSON."""
    pairs = paired(first, second)
    only_a = [pair for pair in pairs if pair[0]["right"] and not pair[1]["right"]]
    only_b = [pair for pair in pairs if pair[1]["right"] and not pair[0]["right"]]
    return {
        "questions": len(pairs),
        "metrics": differences([a for a, _ in pairs], [b for _, b in pairs]),
        "both_right": sum(bool(a["right"] and b["right"]) for a, b in pairs),
        "only_a_right": len(only_a),
        "only_b_right": len(only_b),
        "mcnemar_p": mcnemar(len(only_a), len(only_b)),
        "differing_answers": sum(a["answer"] != b["answer"] for a, b in pairs),
        "examples": [_example(a, b) for a, b in only_a + only_b],
    }


def _example(a: Item, b: Item) -> dict[str, Any]:
    shared = {key: a[key] for key in ("picture", "question", "truth")}
    return shared | {"a": a["answer"], "b": b["answer"], "right": "a" if a["right"] else "b"}


def comparison_text(result: dict[str, Any], examples: int) -> str:
    lines = [
        f"{result['questions']} questions; B less A with its 95 % interval (paired bootstrap over pictures)",
        "",
    ]
    for name, each in result["metrics"].items():
        clear = "" if each["low"] <= 0 <= each["high"] else "  *"
        lines.append(
            f"{name:24}{each['a']:8.3f}{each['b']:8.3f}{each['difference']:+9.3f}"
            f"  ({each['low']:+.3f} to {each['high']:+.3f}){clear}"
        )
    lines += [
        "",
        f"both right {result['both_right']}, only A {result['only_a_right']}, only B {result['only_b_right']}; "
        f"McNemar's exact p = {result['mcnemar_p']:.4f}; {result['differing_answers']} answers differ",
    ]
    for each in result["examples"][:examples]:
        lines.append(f"only {each['right'].upper()} right: {each['question']} [{each['truth']}]")
        lines.append(f"    A: {each['a']}\n    B: {each['b']}")
    if len(result["examples"]) > examples:
        lines.append(f"... and {len(result['examples']) - examples} more (--examples, --json)")
    return "\n".join(lines)


@command("compare")
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("a", type=Path, help="result file of training.evaluate")
    parser.add_argument("b", type=Path, help="another over the same questions")
    parser.add_argument("--examples", type=int, default=20, help="how many differing answers to show")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    arguments = parser.parse_args()
    result = compare(read_result(arguments.a)["answers"], read_result(arguments.b)["answers"])
    print(to_json(result) if arguments.json else comparison_text(result, arguments.examples))


if __name__ == "__main__":
    main()
