"""python -m training.report RESULT.json --folder data/embedded --out DIR

In: a result file of training.evaluate --json, and the folder of parquet files with its pictures. Out, in DIR: report.md,
tables of every measure with its interval, its baselines and its limits; and contact-sheet.png, the wrong answers first.
Unusual: all figures come from the result file; nothing is computed again.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from training.compare import read_result
from training.data import pictures_of
from training.scores.bootstrap import RESAMPLES
from training.scores.contact_sheet import chosen, contact_sheet
from vlm.errors import UserError
from vlm.serving.about import table

BASELINES = {
    "accuracy": "the adapter",
    "blank_picture": "the same, looking at a blank picture",
    "shuffled_pictures": "the same, looking at another question's picture",
    "question_only": "most frequent training answer, looking at nothing",
}
SHARES = {  # shown as percentages
    "accuracy", "blank_picture", "shuffled_pictures", "question_only", "exact_match", "vqa_accuracy", "noun_accuracy",
    "choice_accuracy", "repetition_rate", "ended_by_itself", "balanced_accuracy", "yes_rate", "hallucination_precision",
    "hallucination_recall", "hallucination_f1",
}  # fmt: skip
LIMITS = """
- Intervals hold 95 % and come from {resamples:,} bootstrap resamples of the pictures, each with all of its questions; those
  of plain shares in the first table are Wilson's. They say how much other pictures of the same kind would change a figure,
  not how it would be on pictures of another kind.
- BLEU, ROUGE-L, METEOR and CIDEr compare wording with one or a few references; on answers of a word or two they say little
  more than exact match does. METEOR matches exact words and stems only. CIDEr weighs words by how rare they are here, so it
  compares only with results over the same questions.
- "Hallucination" is POPE's (arXiv:2305.10355), on the yes/no questions of this data: yes to a thing that is not there. An
  answer that is neither yes nor no is wrong, and is not a yes.
- Another question's picture can show the same thing, so its accuracy need not be that of chance.
- Perplexity is of the reference answer's tokens, in the model's own tokenizer: it compares adapters of one language model.
- SPICE is left out: {spice}.
"""


def to_markdown(result: dict[str, Any], name: str, sheet: bool = False) -> str:
    """A result -> the report's text; `sheet`: the contact sheet lies beside it."""
    asked = result.get("options", {})
    task = f", task {asked['task']}" if asked.get("task") else ""
    how = f"{asked.get('answers', 'draft')} answers, style {asked.get('style', 'full')}"
    heading = [
        f"# {name}: {result['source']}, {result['split']}{task}",
        f"{result['questions']} questions about {len({item['picture'] for item in result['answers']})} pictures; {how}, "
        f"temperature {asked.get('temperature', 0)}.",
        "## Right answers beside their baselines",
        table(("", "right", "of", "share", "95 % interval (Wilson)"), baseline_rows(result)),
        "## All measures",
        table(("measure", "value", "95 % interval", "questions"), measure_rows(result["metrics"])),
    ]
    groups = []
    for group, named in result["by"].items():
        rows = [group_row(label, each) for label, each in named.items()]
        groups += [
            f"## By {group}",
            table((group, "n", "right", "95 % interval (pictures)", "exact", "CIDEr"), rows),
        ]
    shown = (
        ["## Pictures", "Wrong answers first.\n\n![Answers and truths](contact-sheet.png)"] if sheet else []
    )
    spice = result["metrics"].get("spice", {}).get("reason", "it was not computed")
    limits = LIMITS.format(resamples=RESAMPLES, spice=spice).strip()
    return "\n\n".join([*heading, *groups, *shown, "## Limits", limits]) + "\n"


def baseline_rows(result: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, words in BASELINES.items():
        if each := result.get(name):
            span = f"{each['low']:.1%} to {each['high']:.1%}"
            rows.append([words, str(each["right"]), str(each["of"]), f"{each['share']:.1%}", span])
    return rows


def measure_rows(metrics: dict[str, dict[str, Any]]) -> list[list[str]]:
    rows = []
    for name, each in metrics.items():
        if each["value"] is None:
            rows.append([name, "-", each.get("reason", "no such questions"), "0"])
        else:
            span = f"{_figure(name, each['low'])} to {_figure(name, each['high'])}"
            rows.append([name, _figure(name, each["value"]), span, str(each["of"])])
    return rows


def group_row(label: str, group: dict[str, Any]) -> list[str]:
    metrics = group["metrics"]
    right = metrics["accuracy"]
    cells = [label, str(group["n"]), f"{right['value']:.1%}", f"{right['low']:.1%} to {right['high']:.1%}"]
    return cells + [
        _figure(name, metrics[name]["value"]) if name in metrics else "-" for name in ("exact_match", "cider")
    ]


def _figure(name: str, value: float) -> str:
    return f"{value:.1%}" if name in SHARES else f"{value:.3f}"


def write_report(result: dict[str, Any], name: str, folder: Path | None, out: Path) -> list[Path]:
    """Writes both files, or report.md alone where there is no folder of pictures -> what was written."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    if folder:
        items = chosen(result["answers"])
        wanted = {item["picture"] for item in items}
        source = None if result["source"] == "all" else result["source"]
        stored = pictures_of(folder, result["split"], source)
        pictures = {picture: content for picture, content in stored if picture in wanted}
        written.append(out / "contact-sheet.png")
        contact_sheet(items, pictures).save(written[0])
    written.append(out / "report.md")
    written[-1].write_text(to_markdown(result, name, sheet=bool(folder)), encoding="utf-8")
    return written


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("result", type=Path, help="result file of training.evaluate --json")
    parser.add_argument(
        "--folder", type=Path, help="folder of parquet files; without it there is no contact sheet"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    arguments = parser.parse_args()
    try:
        result = read_result(arguments.result)
        if "metrics" not in result:
            raise UserError(f"{arguments.result} is of an older training.evaluate; make it again.")
        name = Path(result.get("adapter", arguments.result.stem)).name
        for file in write_report(result, name, arguments.folder, arguments.out):
            print(file)
    except UserError as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
