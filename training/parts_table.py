"""Results of training.compare_parts -> a table for people and a plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.plot import new_figure, save_figure
from vlm.markdown_table import table as markdown_table

TABLE, PLOT = "table.md", "parts.png"
COLUMNS = {  # heading -> kind of question, measure
    "caption CIDEr": ("captions", "cider"),
    "is there a ..., balanced": ("yes_or_no", "balanced_accuracy"),
    "right noun": ("nouns", "noun_accuracy"),
}
DETAILS = {
    "invented objects (CHAIR-i)": ("captions", "chair_i"),
    "yes to what is not there (POPE), F1": ("yes_or_no", "hallucination_f1"),
    "share of yes": ("yes_or_no", "yes_rate"),
}
LEANINGS = (
    "right noun with another picture",
    "without one: right noun, is there",
    "answer unmoved by another picture",
    "modality gap",
)
CIDER = "cider"

Result = Mapping[str, Any]


def table(results: Sequence[Result]) -> str:
    """Two tables in Markdown: what each cell is worth, and what it leans on."""
    ordered = sorted(results, key=lambda result: -value_of(result, "picture", "captions", CIDER))
    head = ["cell", "fusion", "visual tokens", "trained parameters", "core seconds a step"]
    head += [f"{name} (95 %), blank picture" for name in COLUMNS]
    worth = markdown_table(head, [_worth(result) for result in ordered])
    return f"{worth}\n\n{markdown_table(['cell', *DETAILS, *LEANINGS], [_leanings(result) for result in ordered])}"


def _worth(result: Result) -> list[str]:
    return [
        result["cell"],
        result["fusion"]["kind"],
        str(result["visual_tokens"]),
        f"{result['trained_parameters'] / 1e6:.1f} M" if "trained_parameters" in result else "-",
        f"{result['core_seconds_a_step']:.1f}" if "core_seconds_a_step" in result else "-",
        *(_with_blank(result, *column) for column in COLUMNS.values()),
    ]


def _leanings(result: Result) -> list[str]:
    gap = result["modality_gap"]
    return [
        result["cell"],
        *(_figure(result, "picture", *column) for column in DETAILS.values()),
        _figure(result, "other_picture", "nouns", "noun_accuracy"),
        f"{_figure(result, 'no_picture', 'nouns', 'noun_accuracy')}, "
        f"{_figure(result, 'no_picture', 'yes_or_no', 'balanced_accuracy')}",
        f"{result['unmoved_by_another_picture']['share']:.0%}",
        "-" if gap is None else f"{gap:.2f}",
    ]


def value_of(result: Result, variant: str, kind: str, measure: str) -> float:
    """-1 where there is none."""
    found = result["scores"][variant].get(kind, {}).get(measure)
    return -1.0 if found is None else found["value"]


def _figure(result: Result, variant: str, kind: str, measure: str) -> str:
    value = value_of(result, variant, kind, measure)
    return "-" if value < 0 else _shown(measure, value)


def _shown(measure: str, value: float) -> str:
    return f"{100 * value:.1f}" if measure == CIDER else f"{value:.0%}"


def _with_blank(result: Result, kind: str, measure: str) -> str:
    found = result["scores"]["picture"].get(kind, {}).get(measure)
    if found is None:
        return "-"
    value, low, high = (_shown(measure, found[name]) for name in ("value", "low", "high"))
    return f"{value} ({low} to {high}), {_figure(result, 'blank_picture', kind, measure)}"


def draw(results: Sequence[Result], out: Path) -> None:
    """A bar for each cell and measure with its interval, and a mark where the blank picture stands."""
    ordered = sorted(results, key=lambda result: value_of(result, "picture", "captions", CIDER))
    size = 11, 1.2 + 0.4 * len(ordered)
    figure, axes = new_figure(1, len(COLUMNS), figsize=size, sharey=True)
    for axis, (heading, (kind, measure)) in zip(axes, COLUMNS.items(), strict=True):
        for place, result in enumerate(ordered):
            found = result["scores"]["picture"].get(kind, {}).get(measure)
            if found is None:
                continue
            value = found["value"]
            spread = [[max(0.0, value - found["low"])], [max(0.0, found["high"] - value)]]
            axis.barh(place, value, xerr=spread, color="tab:blue", alpha=0.7, error_kw={"elinewidth": 1})
            axis.plot(value_of(result, "blank_picture", kind, measure), place, "k|", markersize=10)
        axis.set_title(heading, fontsize=10)
        axis.set_xlim(left=0)
    axes[0].set_yticks(range(len(ordered)), [result["cell"] for result in ordered])
    figure.supxlabel("bars: held-out pictures, 95 % intervals; marks: a blank picture", fontsize=9)
    save_figure(figure, out)
