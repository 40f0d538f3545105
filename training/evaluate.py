"""python -m training.evaluate --adapter assets/adapters/embedded --data easy-vqa --split test

Generates the adapter's answers to one split of one source and scores them beside two baselines: the same model looking
at a blank (white) picture, and the most frequent training answer to each question, which looks at nothing.
Where the noun of a picture is known the naming question is scored, and right when the answer names it; elsewhere every
question is, and right when the answer is equal.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from training.data import Row, pictures_of, read_rows
from training.features import FeatureStore
from training.metrics import is_exact, majority_answers, names_one_of, normalise, share
from vlm.artifact import adapter_config, find_adapter, load_adapter
from vlm.config import AnswersConfig
from vlm.errors import UserError
from vlm.model import Sight, VisionLanguageModel, VisualTurn, build_model

NAMING_QUESTION = "What is this?"
MAX_NEW_TOKENS = 32


def is_right(row: Row, answer: str) -> bool:
    return names_one_of(answer, (row.noun, *row.accepted)) if row.noun else is_exact(answer, row.answer)


def select(rows: list[Row], limit: int | None) -> list[Row]:
    """The questions to score: the naming question of each picture whose noun is known, else all questions."""
    if any(row.noun for row in rows):
        rows = list({row.picture: row for row in rows if row.question == NAMING_QUESTION}.values())
    return rows[:limit]


def answer_all(
    model: VisionLanguageModel,
    questions: Sequence[tuple[Sight, str]],
    answers: AnswersConfig,
    batch_size: int,
) -> list[str]:
    """Greedy drafts in batches of similar length."""
    order = sorted(range(len(questions)), key=lambda index: len(questions[index][1]))
    drafts = [""] * len(questions)
    for start in tqdm(range(0, len(order), batch_size), desc="answers"):
        indices = order[start : start + batch_size]
        conversations = [[VisualTurn(questions[index][1], "", (questions[index][0],))] for index in indices]
        for index, draft in zip(
            indices, model.answer_all(conversations, answers, answers.image_system), strict=True
        ):
            drafts[index] = draft.strip()
    return drafts


def evaluate(
    adapter: Path, folder: Path, source: str, split: str, limit: int | None = None, batch_size: int = 32
) -> dict[str, Any]:
    """Scores with their baselines, and every answer."""
    config = adapter_config(adapter)
    model = build_model(config, "cuda" if torch.cuda.is_available() else "cpu")
    load_adapter(model, adapter)
    model.eval()
    rows = select(read_rows(folder, split, source), limit)
    if not rows:
        raise UserError(
            f"{folder} holds no rows of {source}, split {split}. Make them with python -m training.prepare."
        )
    store = FeatureStore(folder, config.vision)
    store.add(pictures_of(folder, split, source), model.vision)
    answers = AnswersConfig(image_system=config.answers.image_system, max_new_tokens=MAX_NEW_TOKENS)

    sights = {row.picture: model.recognise(store[row.picture].unsqueeze(0))[0] for row in rows}
    drafts = answer_all(model, [(sights[row.picture], row.question) for row in rows], answers, batch_size)
    (blank,) = model.see([Image.new("RGB", (256, 256), "white")])
    questions = sorted({row.question for row in rows})
    blank_drafts = answer_all(model, [(blank, question) for question in questions], answers, batch_size)
    unseen = dict(zip(questions, blank_drafts, strict=True))
    frequent = majority_answers((row.question, row.answer) for row in read_rows(folder, "train", source))
    guesses = [frequent.get(normalise(row.question), frequent.get("", "")) for row in rows]
    return {
        "source": source,
        "split": split,
        "questions": len(rows),
        "accuracy": share([is_right(*pair) for pair in zip(rows, drafts, strict=True)])._asdict(),
        "blank_picture": share([is_right(row, unseen[row.question]) for row in rows])._asdict(),
        "question_only": share([is_right(*pair) for pair in zip(rows, guesses, strict=True)])._asdict(),
        "answers": [
            {
                "picture": row.picture,
                "question": row.question,
                "truth": row.noun or row.answer,
                "answer": draft,
            }
            for row, draft in zip(rows, drafts, strict=True)
        ],
    }


def record(adapter: Path, scores: dict[str, Any], command: str) -> None:
    """Keep the scores in the adapter's metrics.json, without the single answers."""
    file = adapter / "metrics.json"
    metrics = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    kept = {key: value for key, value in scores.items() if key != "answers"} | {"command": command}
    metrics[f"{scores['source']}/{scores['split']}"] = kept
    file.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--adapter", default="embedded", help="a shipped adapter's name or an adapter folder")
    parser.add_argument("--data", required=True, help="the source to score, such as easy-vqa or tuxpaint")
    parser.add_argument("--folder", type=Path, default=Path("data/embedded"), help="folder of parquet files")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, help="score the first questions only")
    parser.add_argument("--json", action="store_true", help="print all scores and answers as JSON")
    parser.add_argument("--record", action="store_true", help="keep the scores in the adapter's metrics.json")
    arguments = parser.parse_args()
    try:
        adapter = find_adapter(arguments.adapter)
        scores = evaluate(adapter, arguments.folder, arguments.data, arguments.split, arguments.limit)
    except UserError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    if arguments.record:
        record(adapter, scores, "python -m training.evaluate " + shlex.join(sys.argv[1:]))
    if arguments.json:
        print(json.dumps(scores, indent=1, ensure_ascii=False))
    else:
        for name in ("accuracy", "blank_picture", "question_only"):
            result = scores[name]
            print(
                f"{name:15}{result['share']:7.1%}  ({result['right']} of {result['of']}; "
                f"95 % interval {result['low']:.1%} to {result['high']:.1%})"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
