"""Results -> lines of text to print."""

from collections.abc import Mapping, Sequence
from typing import Any

from training.scores.results import SHARES

PERCENTAGES = {
    *SHARES, "exact_match", "vqa_accuracy", "noun_accuracy", "choice_accuracy", "count_accuracy", "accepted_exact",
    "most_frequent_number", "repetition_rate", "ended_by_itself", "balanced_accuracy", "yes_rate", "as_alone",
    "hallucination_precision", "hallucination_recall", "hallucination_f1", "chair_i", "chair_s",
}  # fmt: skip
TIMES_100 = {"cider"}  # as it is usually given; not a share
HEAD = ("what", "n", "draft", "answer", "95 % interval", "blank", "question only", "goal", "met")


def result_text(result: Mapping[str, Any]) -> str:
    """One result: shares, what the clean-up did, all measures, groups."""
    lines = []
    for name in SHARES:
        if found := result[name]:
            lines.append(
                f"{name:18}{found['share']:7.1%}  ({found['right']} of {found['of']}; "
                f"95 % interval {found['low']:.1%} to {found['high']:.1%})"
            )
    lines += [
        clean_up_line(result["clean_up"]),
        "",
        "all measures, 95 % intervals by bootstrap over pictures:",
    ]
    for name, each in result["metrics"].items():
        if each["value"] is not None:
            value, low, high = (figure(name, each[part]) for part in ("value", "low", "high"))
            lines.append(f"  {name:24}{value:>8}  ({low} to {high}; n {each['of']})")
    for group, named in result["by"].items():
        shown = [
            f"{name} {found['share']:.1%} of {found['of']}"
            for name, each in named.items()
            if (found := each["accuracy"])
        ]
        if shown:
            lines.append(f"accuracy by {group}: {', '.join(shown)}")
    return "\n".join(lines)


def clean_up_line(done: Mapping[str, Any]) -> str:
    verdicts = ", ".join(f"{name} {count}" for name, count in done["verdicts"].items())
    return (
        f"clean-up: {verdicts}; {done['improved']} wrong drafts put right, {done['worsened']} right ones spoilt "
        f"(McNemar's exact p = {done['mcnemar_p']:.3f})"
    )


def goals_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of suites.goal_rows as one aligned table, which Markdown reads as well."""
    cells = [HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEAD))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    def shown(value: float | None) -> str:
        return figure(row["measure"], value)

    span = f"{shown(row['low'])} to {shown(row['high'])}" if row["low"] is not None else ""
    bounds = [("at least ", row["at_least"]), ("at most ", row["at_most"])]
    goal = ", ".join(words + shown(value) for words, value in bounds if value is not None)
    met = {None: "", True: "yes", False: "no"}[row["met"]]
    values = [shown(row[name]) for name in ("draft", "answer", "blank_picture", "question_only")]
    return (row["what"], f"{row['n']:,}", *values[:2], span, *values[2:], goal, met)


def figure(measure: str, value: float | None) -> str:
    """A figure as people read it: per cent of a share, times 100 for CIDEr."""
    if value is None:
        return "-"
    if measure in PERCENTAGES:
        return f"{value:.1%}"
    return f"{100 * value:.1f}" if measure in TIMES_100 else f"{value:.3f}"
