"""python -m training.evaluate --adapter assets/adapters/embedded --data easy-vqa --split test

Asks an adapter the questions of one split, through the pipeline that serves, and scores its answers and their drafts beside
two baselines: the same model looking at a blank (white) picture, and the most frequent training answer to each question,
which looks at nothing. --thorough adds a third, the same model looking at another question's picture.

Without --task the naming question is scored where the noun of a picture is known, else every question. Each task has its
own rule (training/scores/verdicts.py). Shares have Wilson's interval, all other measures one by bootstrap over pictures.

--suite development --output DIR asks everything that the project's goals are about and prints one table. Answers are kept
beside --output while they come: killed, the same command goes on.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

from training.data import pictures_of
from training.scores.answering import (
    BLANK,
    answer_all,
    blank_picture,
    open_journal,
    settings_of,
    shown_picture,
)
from training.scores.journal import Journal
from training.scores.recording import given_command, record
from training.scores.results import make_result
from training.scores.second_pictures import PAIRS, second_pictures
from training.scores.selection import (
    TASKS,
    NoQuestions,
    Options,
    blind_guesses,
    from_sources,
    other_pictures,
    questions_of,
    rows_of,
    there,
)
from training.scores.suites import SUITES, Run, goal_rows, pooled_rows, runs_of
from training.scores.tables import goals_table, result_text
from vlm.chat.assistant import Assistant, load_assistant
from vlm.errors import UserError
from vlm.locks import alone_in
from vlm.model.adapter_folder import find_adapter
from vlm.terminal import command, to_json
from vlm.weights.hub import hub_name
from vlm.whole_files import write_json, write_whole


def evaluate(assistant: Assistant, folder: Path, options: Options, journal: Journal) -> dict[str, Any]:
    """Scores with their baselines, and every answer."""
    rows = questions_of(folder, options)
    training = from_sources(rows_of(folder, "train"), options.source)
    other = other_pictures([row.picture for row in rows]) if options.thorough else {}
    wanted = {row.picture for row in rows}
    pictures = {BLANK: blank_picture()}
    for name, content in pictures_of(folder, options.split):
        if name in wanted and name not in pictures:
            pictures[name] = shown_picture(name, content)
    asked = [(row.picture, row.question) for row in rows]
    asked += [(other[row.picture], row.question) for row in rows if other]
    asked += [(BLANK, row.question) for row in rows]
    replies = answer_all(assistant, asked, pictures, settings_of(assistant, options), journal)
    return make_result(rows, replies, blind_guesses(rows, training), other, options)


def evaluate_suite(assistant: Assistant, adapter: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every run of a suite, each with its result file in --output -> the results and the rows of one table."""
    out: Path = arguments.output
    how = {name: getattr(arguments, name) for name in ("answers", "style", "temperature", "thorough")}
    runs = runs_of(arguments.suite, arguments.full, arguments.limit, **how)
    journal = open_journal(assistant, adapter, runs[0].options, out / "answers.jsonl")
    goals, results = [], {}
    for run in runs:
        print(f"{run.name}:", file=sys.stderr)
        try:
            result = {"adapter": str(adapter)} | evaluate(assistant, arguments.folder, run.options, journal)
        except NoQuestions as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        write_json(result, out / f"{run.name}.json")
        results[run.name] = result | {"goals": goal_rows(run, result)}
        goals += results[run.name]["goals"]
    try:
        pairs = min(PAIRS, arguments.limit or PAIRS)
        settings = settings_of(assistant, runs[0].options)
        found = second_pictures(assistant, arguments.folder, settings, journal, pairs)
        write_json(found, out / "second-pictures.json")
        goals += found["goals"]
    except NoQuestions as error:
        print(f"left out: {error}", file=sys.stderr)
    goals += pooled_rows([item for result in results.values() for item in result["answers"]])
    told = {"adapter": str(adapter), "model": assistant.description, "runs": list(results), "goals": goals}
    write_json(told, out / "goals.json")
    write_whole(out / "goals.md", goals_table(goals) + "\n")
    return {"results": results, "goals": goals}


def check_suite(folder: Path, runs: Sequence[Run]) -> None:
    """Raise UserError where the folder has questions of none of the runs."""
    for run in runs:
        try:
            questions_of(folder, run.options)
            return
        except NoQuestions:
            continue
    asked = ", ".join(dict.fromkeys(f"{run.options.source} ({run.options.split})" for run in runs))
    raise UserError(
        f"The suite asks about {asked}, and {folder} has nothing of them. {there(folder)} Name one with --data and --split."
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--adapter", default="embedded", help="a shipped adapter, a folder, or user/name on the hub")
    add("--preset", help="what serves it; default: the model that it was trained for")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", help="a source such as easy-vqa, several with commas between, or all")
    what.add_argument("--suite", choices=[*SUITES], help="all that the goals are about; needs --output DIR")
    add("--folder", type=Path, default=Path("data/embedded"), help="folder of parquet files")
    add("--split", help="with --data (default: test)")
    add("--task", choices=[*TASKS, "all"], help="with --data: the questions; default: naming, else all")
    add("--kind", help="with --data: only photo, drawing, render, composited or synthetic pictures")
    add("--limit", type=int, help="so many questions, drawn with a fixed seed; with --suite, of each run")
    add("--full", action="store_true", help="with --suite: all 9,673 questions of easy-VQA")
    add("--answers", choices=["clean", "draft"], default="clean", help="draft: without the clean-up pass")
    add("--style", choices=["full", "keywords"], default="full")
    add("--temperature", type=float, default=0.0, help="0: greedy; above: drawn")
    add("--thorough", action="store_true", help="with another question's picture as a third baseline")
    add("--output", type=Path, help="result file (.json); with --suite a folder")
    add("--json", action="store_true", help="print the result as JSON")
    add("--save", action="store_true", help="keep the scores in the adapter's metrics.json")
    arguments = parser.parse_args()
    check_options(parser, arguments)
    if arguments.limit is not None and arguments.limit < 1:
        parser.error("--limit must be 1 or more")
    return arguments


def check_options(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """End with the command's usage where an option does not go with --data or with --suite, or --output is of the other."""
    output: Path | None = arguments.output
    if arguments.suite:
        if not output:
            parser.error("--suite needs --output DIR")
        if output.is_file():
            parser.error(f"with --suite --output is a folder, and {output} is a file")
        if given := [f"--{name}" for name in ("split", "task", "kind") if getattr(arguments, name)]:
            parser.error(f"{', '.join(given)}: a suite has its own; give --data in place of --suite")
        return
    if output and (output.suffix != ".json" or output.is_dir()):
        parser.error(f"with --data --output is a result file (.json); {output} was given")
    if arguments.full:
        parser.error("--full goes with --suite")


def run(arguments: argparse.Namespace) -> str:
    """What is asked for -> the text to print."""
    adapter = find_adapter(arguments.adapter)
    if arguments.save and hub_name(adapter):
        raise UserError(f"--save keeps scores in a folder of your own: copy {adapter} and give the copy.")
    options = None if arguments.suite else options_of(arguments)
    if options:
        questions_of(arguments.folder, options)  # a wrong name is told before the model is loaded
    else:
        check_suite(arguments.folder, runs_of(arguments.suite, limit=arguments.limit))
    assistant = load_assistant(arguments.preset, str(adapter))
    if options:
        return run_one(assistant, adapter, options, arguments)
    found = evaluate_suite(assistant, adapter, arguments)
    if arguments.save:
        for result in found["results"].values():
            record(adapter, result, given_command("training.evaluate"), result["goals"])
    return to_json(found["goals"]) if arguments.json else goals_table(found["goals"])


def run_one(assistant: Assistant, adapter: Path, options: Options, arguments: argparse.Namespace) -> str:
    file: Path | None = arguments.output
    journal = open_journal(assistant, adapter, options, file and file.with_suffix(".jsonl"))
    result = {"adapter": str(adapter)} | evaluate(assistant, arguments.folder, options, journal)
    if file:
        write_json(result, file)
    if arguments.save:
        record(adapter, result, given_command("training.evaluate"))
    return to_json(result) if arguments.json else result_text(result)


def options_of(arguments: argparse.Namespace) -> Options:
    given = {
        field.name: getattr(arguments, field.name) for field in fields(Options) if field.name != "source"
    }
    return Options(arguments.data, **given | {"split": arguments.split or Options.split})


@command("evaluate")
def main() -> None:
    arguments = parse()
    with alone_in(arguments.output) if arguments.output else nullcontext():
        print(run(arguments))


if __name__ == "__main__":
    main()
