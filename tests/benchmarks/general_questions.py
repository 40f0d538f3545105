"""python tests/benchmarks/general_questions.py: whether text answers are those of the base model.

Thirty questions, written down before any adapter was trained on them, go to the assistant with its adapter loaded and to
the same weights without one. Greedy answers must be equal, word for word. Five minutes on two cores.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from vlm import load_assistant  # noqa: E402
from vlm.config import load_model_config  # noqa: E402
from vlm.config_reader import to_dict  # noqa: E402

QUESTIONS = (ROOT / "tests/data/general-questions.txt").read_text(encoding="utf-8").splitlines()


def answers(preset: str) -> list[str]:
    assistant = load_assistant(preset)
    try:
        settings = replace(assistant.settings, max_new_tokens=64)
        return [assistant.answer(question, settings=settings).text for question in QUESTIONS]
    finally:
        assistant.close()


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base.yaml"
        base.write_text(
            yaml.safe_dump(to_dict(replace(load_model_config("embedded"), adapter=None))), "utf-8"
        )
        pairs = list(zip(QUESTIONS, answers("embedded"), answers(str(base)), strict=True))
    for question, with_adapter, without in pairs:
        print(f"{'=' if with_adapter == without else '!'} {question}\n    {with_adapter}")
        if with_adapter != without:
            print(f"    {without}")
    equal = sum(with_adapter == without for _, with_adapter, without in pairs)
    print(f"{equal} of {len(pairs)} answers are equal")
    return int(equal < len(pairs))


if __name__ == "__main__":
    sys.exit(main())
