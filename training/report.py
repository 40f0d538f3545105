"""python -m training.report RESULT.json --folder data/embedded --output DIR

Writes a result of training.evaluate as report.md, tables of every measure with its interval, its baselines and its limits,
and as contact-sheet.png, 40 pictures with question, answer and truth, the wrong answers first. In place of RESULT.json, the
folder of a suite gives one report of all its runs, and a sheet of 40 photographs drawn from them. All figures come from the
files; nothing is computed again.
"""

import argparse
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.data import pictures_of
from training.plot import new_figure, save_figure
from training.scores.contact_sheet import chosen, drawn
from training.scores.markdown import result_sections, to_markdown
from training.scores.results import read_result
from training.scores.tables import goals_table
from vlm.errors import UserError
from vlm.inputs.images import open_image
from vlm.model.adapter_folder import adapter_name
from vlm.terminal import command

Result = dict[str, Any]
COLUMNS = 6
WIDTH, SIDE, ABOVE, BELOW = 2.0, 1.8, 0.6, 1.1  # inches of a tile, of its picture and of the text around it
VERDICTS = {None: ("answer", "#5f6368"), True: ("right", "#1b6e3c"), False: ("wrong", "#b3261e")}


def read_suite(folder: Path) -> tuple[list[Result], list[dict[str, Any]]]:
    """The folder of training.evaluate --suite -> the results of its runs, and its goals."""
    try:
        goals = json.loads((folder / "goals.json").read_text(encoding="utf-8"))
        results = [read_result(folder / f"{name}.json") for name in goals["runs"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} is not the folder of a python -m training.evaluate --suite.") from error
    return results, goals["goals"]


def write_sheet(results: Sequence[Result], items: Sequence[dict[str, Any]], folder: Path, file: Path) -> None:
    """The items on one sheet, with their pictures out of the folder of parquet files."""
    wanted = {item["picture"] for item in items}
    pictures: dict[str, bytes] = {}
    for split in sorted({result["split"] for result in results}):
        pictures |= {name: content for name, content in pictures_of(folder, split) if name in wanted}
    draw_sheet(items, pictures, file)


def draw_sheet(items: Sequence[dict[str, Any]], pictures: Mapping[str, bytes], file: Path) -> None:
    """A grid of pictures with question, answer and truth. The words "right" and "wrong" stand beside the colours; a
    caption is neither."""
    columns = max(1, min(COLUMNS, len(items)))
    rows = max(1, -(-len(items) // columns))
    height = rows * (ABOVE + SIDE + BELOW)
    room = {"left": 0.01, "right": 0.99, "top": 1 - ABOVE / height, "bottom": BELOW / height}
    room |= {"hspace": (ABOVE + BELOW) / SIDE, "wspace": 0.1}
    size = (columns * WIDTH, height)
    figure, panels = new_figure(rows, columns, layout=None, figsize=size, squeeze=False, gridspec_kw=room)
    for panel in panels.flat[len(items) :]:
        panel.axis("off")
    for panel, item in zip(panels.flat, items, strict=False):
        verdict, colour = VERDICTS[item["right"]]
        panel.set(xticks=[], yticks=[], anchor="S")
        panel.spines[:].set(color=colour, linewidth=2)
        try:
            panel.imshow(open_image(pictures.get(item["picture"], b"")))
        except UserError:
            panel.text(0.5, 0.5, "no picture", ha="center", va="center")
        panel.set_title(wrapped(item["question"]), fontsize=7, parse_math=False)
        said = f"{verdict}: {item['answer'] or '(nothing)'}", f"truth: {item['truth']}"
        panel.set_xlabel("\n".join(map(wrapped, said)), color=colour, fontsize=7, parse_math=False)
    save_figure(figure, file)


def wrapped(text: str) -> str:
    return textwrap.fill(text, 34, max_lines=4, placeholder=" ...")


def write_report(
    results: Sequence[Result], goals: Sequence[dict[str, Any]], name: str, folder: Path | None, out: Path
) -> list[Path]:
    """Writes both files, or report.md alone where there is no folder of pictures -> what was written. One result, or those
    of a suite with its goals."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    if folder:
        items = drawn([result["answers"] for result in results]) if goals else chosen(results[0]["answers"])
        written.append(out / "contact-sheet.png")
        write_sheet(results, items, folder, written[0])
    sections = [f"# {name}", "## Goals", goals_table(goals)] if goals else []
    for result in results:
        sections += result_sections(result, name, level=2 if goals else 1)
    written.append(out / "report.md")
    written[-1].write_text(to_markdown(sections, sheet=bool(folder)), encoding="utf-8")
    return written


@command("report")
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "result", type=Path, help="result file of training.evaluate, or the folder of a suite"
    )
    parser.add_argument(
        "--folder", type=Path, help="folder of parquet files; without it there is no contact sheet"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    arguments = parser.parse_args()
    path: Path = arguments.result
    results, goals = read_suite(path) if path.is_dir() else ([read_result(path)], [])
    if not all("baselines" in result for result in results):
        raise UserError(f"{path} is of an older training.evaluate; make it again.")
    name = adapter_name(Path(results[0]["adapter"])) if "adapter" in results[0] else path.stem
    for file in write_report(results, goals, name, arguments.folder, arguments.output):
        print(file)


if __name__ == "__main__":
    main()
