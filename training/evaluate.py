"""python -m training.evaluate --adapter assets/adapters/embedded --data easy-vqa --split test

Generates the adapter's answers to one split of one source and scores them beside two baselines: the same model looking at
a blank (white) picture, and the most frequent training answer to each question, which looks at nothing; --thorough adds a
third, the same model looking at another question's picture.
Where the noun of a picture is known the naming question is scored, and right when the answer names it; elsewhere every
question is, and right when the answer is equal. --task chooses other questions; each task has its own rule
(training/scores/scoring.py). Shares have Wilson's interval, all other measures one by bootstrap over pictures.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from training.data import Row, pictures_of, read_rows
from training.features import FeatureStore
from training.scores.answering import answer_all, other_pictures, reference_loss
from training.scores.metrics import share
from training.scores.scoring import add_cider, by_group, in_keywords, is_right, make_item, totals
from training.scores.selection import TASKS, Options, blind_guesses, select
from vlm.config import AnswersConfig, ModelConfig
from vlm.errors import UserError
from vlm.model.adapter import adapter_config, find_adapter, load_adapter
from vlm.model.vlm import Sight, VisionLanguageModel, build_model
from vlm.weights.hub import hub_name

MAX_NEW_TOKENS = 32
SHARES = ("accuracy", "blank_picture", "question_only", "shuffled_pictures")


def evaluate(adapter: Path, folder: Path, options: Options) -> dict[str, Any]:
    """Scores with their baselines, and every answer."""
    config = adapter_config(adapter)
    model = build_model(config, "cuda" if torch.cuda.is_available() else "cpu")
    load_adapter(model, adapter)
    model.eval()
    return {"adapter": str(adapter)} | evaluate_model(model, config, folder, options)


def evaluate_model(
    model: VisionLanguageModel, config: ModelConfig, folder: Path, options: Options
) -> dict[str, Any]:
    source = None if options.source == "all" else options.source
    rows = select(read_rows(folder, options.split, source), options.limit, options.task)
    if not rows:
        asked = f"{options.source}, split {options.split}" + (
            f", task {options.task}" if options.task else ""
        )
        raise UserError(f"{folder} holds no rows of {asked}. Make them with python -m training.prepare.")
    store = FeatureStore(folder, config.vision)
    store.add(pictures_of(folder, options.split, source), model.vision)
    pictures = {row.picture for row in rows}
    sights = {picture: model.recognise(store[picture].unsqueeze(0))[0] for picture in pictures}
    torch.manual_seed(0)  # for temperatures above 0
    training = read_rows(folder, "train", source)
    items = ask(model, config, rows, sights, blind_guesses(rows, training, options.task), options)
    return {
        "source": options.source,
        "split": options.split,
        "questions": len(rows),
        **shares(items),
        "options": asdict(options),
        "metrics": totals(items),
        "by": by_group(items),
        "answers": items,
    }


def ask(
    model: VisionLanguageModel,
    config: ModelConfig,
    rows: Sequence[Row],
    sights: dict[str, Sight],
    guesses: Sequence[str],
    options: Options,
) -> list[dict[str, Any]]:
    """Rows with what is seen in their pictures -> items (training.scores.scoring.make_item)."""
    clean = options.answers == "clean"
    limits = config.answers if clean else AnswersConfig(max_new_tokens=MAX_NEW_TOKENS)
    system = config.answers.image_system
    how = replace(limits, image_system=system, style=options.style, temperature=options.temperature)
    drafts = answer_all(model, [(sights[row.picture], row.question) for row in rows], how, clean)
    (blank,) = model.see([Image.new("RGB", (256, 256), "white")])
    questions = sorted({row.question for row in rows})
    blank_drafts = answer_all(model, [(blank, question) for question in questions], how, clean)
    unseen = dict(zip(questions, blank_drafts, strict=True))
    other = other_pictures([row.picture for row in rows]) if options.thorough else {}
    asked_elsewhere = [(sights[other[row.picture]], row.question) for row in rows if other]
    elsewhere = answer_all(model, asked_elsewhere, how, clean)
    items = []
    for index, row in enumerate(tqdm(rows, desc="scores")):
        scored = in_keywords(row) if options.style == "keywords" else row
        scores: dict[str, float | None] = {
            "ended": drafts[index].ended,
            "blank_picture": is_right(scored, unseen[row.question].text, clean),
            "question_only": is_right(row, guesses[index]),
        }
        if elsewhere:
            scores["shuffled_pictures"] = is_right(scored, elsewhere[index].text, clean)
        if options.thorough:
            loss = reference_loss(model, sights[row.picture], row.question, row.answer, system)
            scores["nats"], scores["tokens"] = loss
        items.append(make_item(scored, drafts[index].text, clean, **scores))
    add_cider(items)
    return items


def shares(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The plain shares with their Wilson intervals; None for a baseline that was left out."""
    found = {}
    for name in SHARES:
        right = [item["scores"].get("right" if name == "accuracy" else name) for item in items]
        found[name] = None if None in right else share([bool(each) for each in right])._asdict()
    return found


def record(adapter: Path, scores: dict[str, Any], command: str) -> None:
    """Keep the scores in the adapter's metrics.json, without the single answers and the groups' lesser measures."""
    file = adapter / "metrics.json"
    metrics = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    kept = {key: value for key, value in scores.items() if key not in ("answers", "adapter")}
    kept["by"] = {
        group: {name: {"n": each["n"], "accuracy": each["accuracy"]} for name, each in named.items()}
        for group, named in scores["by"].items()
    }
    asked, usual = scores["options"], asdict(Options(scores["source"], scores["split"]))
    first = f", first {asked['limit']}" if asked["limit"] else ""
    changed = [
        f", {key} {asked[key]}"
        for key in usual
        if key not in ("limit", "thorough") and asked[key] != usual[key]
    ]
    metrics[f"{scores['source']}/{scores['split']}{first}{''.join(changed)}"] = kept | {"command": command}
    file.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")


def describe(scores: dict[str, Any]) -> str:
    """The scores as lines of text."""
    lines = []
    for name in SHARES:
        if result := scores[name]:
            lines.append(
                f"{name:15}{result['share']:7.1%}  ({result['right']} of {result['of']}; "
                f"95 % interval {result['low']:.1%} to {result['high']:.1%})"
            )
    lines.append("\nall measures, 95 % intervals by bootstrap over pictures:")
    for name, each in scores["metrics"].items():
        if each["value"] is None:
            lines.append(f"  {name:24}     -" + (f"  ({each['reason']})" if "reason" in each else ""))
        else:
            lines.append(
                f"  {name:24}{each['value']:8.3f}  ({each['low']:.3f} to {each['high']:.3f}; n {each['of']})"
            )
    for group, named in scores["by"].items():
        shown = [f"{name} {each['accuracy']['share']:.1%} of {each['n']}" for name, each in named.items()]
        lines.append(f"accuracy by {group}: {', '.join(shown)}")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--adapter", default="embedded", help="a shipped adapter, a folder, or user/name on the hub")
    add(
        "--data", required=True, help="the source to score, such as easy-vqa or tuxpaint; all for all of them"
    )
    add("--folder", type=Path, default=Path("data/embedded"), help="folder of parquet files")
    add("--split", default="test")
    add("--task", choices=[*TASKS, "all"], help="the questions to score; default: naming, else all")
    add("--limit", type=int, help="score the first questions only")
    add("--answers", choices=["draft", "clean"], default="draft", help="clean: as the app gives them")
    add("--style", choices=["full", "keywords"], default="full")
    add("--temperature", type=float, default=0.0, help="0: greedy; above: drawn, with a fixed seed")
    add(
        "--thorough",
        action="store_true",
        help="with shuffled pictures and perplexity; takes over twice as long",
    )
    add("--json", action="store_true", help="print all scores and answers as JSON")
    add("--record", action="store_true", help="keep the scores in the adapter's metrics.json")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    options = Options(
        arguments.data,
        arguments.split,
        arguments.task,
        arguments.limit,
        arguments.answers,
        arguments.style,
        arguments.temperature,
        arguments.thorough,
    )
    try:
        adapter = find_adapter(arguments.adapter)
        if arguments.record and hub_name(adapter):
            raise UserError(
                f"--record keeps scores in a folder of your own: copy {adapter} and give the copy."
            )
        scores = evaluate(adapter, arguments.folder, options)
    except UserError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    if arguments.record:
        record(adapter, scores, "python -m training.evaluate " + shlex.join(sys.argv[1:]))
    print(json.dumps(scores, indent=1, ensure_ascii=False) if arguments.json else describe(scores))
    return 0


if __name__ == "__main__":
    sys.exit(main())
