"""A result -> the sections of report.md. Pure functions."""

from collections.abc import Mapping, Sequence
from typing import Any

from training.scores.captions import SPICE_ELSEWHERE
from training.scores.resampling import RESAMPLES
from training.scores.tables import clean_up_line, figure
from vlm.markdown_table import table

BASELINES = {
    "accuracy": "the adapter",
    "draft": "its drafts, before the clean-up",
    "blank_picture": "the same, looking at a blank picture",
    "shuffled_pictures": "the same, looking at another question's picture",
    "question_only": "most frequent training answer, looking at nothing",
}
LIMITS = """
- Intervals hold 95 % and come from {resamples:,} bootstrap resamples of the pictures, each with all of its questions; those
  of plain shares in the first table are Wilson's. They say how much other pictures of the same kind would change a figure,
  not how it would be on pictures of another kind.
- BLEU, ROUGE-L, METEOR and CIDEr compare wording with one or a few references; on answers of a word or two they say little
  more than exact match does. METEOR matches exact words and stems only. CIDEr weighs words by how rare they are here, so it
  compares only with results over the same questions.
- "Hallucination" is POPE's (arXiv:2305.10355), on the yes/no questions of this data: yes to a thing that is not there. An
  answer that is neither yes nor no is wrong, and is not a yes.
- CHAIR (Rohrbach et al., 2018) counts the objects of COCO's 80 that a caption names and that neither the known objects of
  the picture nor a human caption has: chair_i is their share of all objects named, chair_s the share of captions with one.
  The synonyms are this project's own.
- The most frequent number is the best constant answer to the very questions that are counted.
- Another question's picture can show the same thing, so its accuracy need not be that of chance.
- SPICE is left out: {spice}.
"""


def to_markdown(sections: Sequence[str], sheet: bool) -> str:
    """The sections, the contact sheet where there is one, and what the figures do not say."""
    shown = ["## Pictures", "![Questions, answers and truths](contact-sheet.png)"] if sheet else []
    limits = LIMITS.format(resamples=RESAMPLES, spice=SPICE_ELSEWHERE).strip()
    return "\n\n".join([*sections, *shown, "## Limits", limits]) + "\n"


def result_sections(result: Mapping[str, Any], name: str, level: int = 1) -> list[str]:
    """`level`: of its heading."""
    asked = result["options"]
    task = f", task {asked['task']}" if asked["task"] else ""
    pictures = len({item["picture"] for item in result["answers"]})
    mark, below = "#" * level, "#" * (level + 1)
    sections = [
        f"{mark} {name}: {result['source']}, {result['split']}{task}",
        f"{result['questions']} questions about {pictures} pictures; {asked['answers']} answers, style {asked['style']}, "
        f"temperature {asked['temperature']}.",
    ]
    if result["accuracy"]:
        shares = table(("", "right", "of", "share", "95 % interval (Wilson)"), baseline_rows(result))
        sections += [f"{below} Right answers beside their baselines", shares]
    sections.append(clean_up_line(result["clean_up"]) + ".")
    head = ("measure", "answers", "95 % interval", "drafts", "blank picture", "questions")
    sections += [f"{below} All measures", table(head, measure_rows(result))]
    for group, named in result["by"].items():
        rows = [group_row(label, each) for label, each in named.items()]
        grouped = table((group, "n", "right", "95 % interval (pictures)", "exact", "CIDEr"), rows)
        sections += [f"{below} By {group}", grouped]
    return sections


def baseline_rows(result: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for name, words in BASELINES.items():
        if each := result.get(name):
            span = f"{each['low']:.1%} to {each['high']:.1%}"
            rows.append([words, str(each["right"]), str(each["of"]), f"{each['share']:.1%}", span])
    return rows


def measure_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """The measures that the answers have, beside those of their drafts and of a blank picture."""
    rows = []
    for name, each in result["metrics"].items():
        if each["value"] is None or name in BASELINES and name != "accuracy":
            continue
        others = [result["baselines"][other].get(name, {}) for other in ("draft", "blank_picture")]
        span = f"{figure(name, each['low'])} to {figure(name, each['high'])}"
        values = [figure(name, other.get("value")) for other in others]
        rows.append([name, figure(name, each["value"]), span, *values, str(each["of"])])
    return rows


def group_row(label: str, group: Mapping[str, Any]) -> list[str]:
    metrics = group["metrics"]
    right = metrics.get("accuracy", {})
    span = f"{right['low']:.1%} to {right['high']:.1%}" if right else "-"
    cells = [label, str(group["n"]), figure("accuracy", right.get("value")), span]
    return cells + [figure(name, metrics.get(name, {}).get("value")) for name in ("exact_match", "cider")]
