"""python -m training.bootstrap --pictures ade20k --texts webshop: captions that can be believed (CapFilt of BLIP,
arXiv:2201.12086).

An adapter captions the pictures that have no text, through the pipeline that serves. Its captions, and texts that came
with other pictures, are kept where an aligner finds that they match. Two sources for training.align and training.finetune
are written into the data folder: `bootstrapped`, and what was dropped. Captions are kept while they come: killed, the same
command goes on.

How much the filter is worth is measured on pairs whose truth is known: those that the aligner was not trained on, of the
source --known, half of which also give the threshold; and with --shuffled, which exchanges a share of the texts first.
--compare trains a preset's aligner with what is kept, and with all.
"""

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from training.aligners.pairs import Captioned, hash_share, is_picture, read_pairs
from training.bootstrapping.bootstrapped import KEPT, QUESTION, write
from training.bootstrapping.filtering import WATCHED, check_watched, compare_filtered
from training.bootstrapping.matching import (
    Claim,
    best_threshold,
    claims_of,
    examples,
    judged,
    scored,
    shuffled,
)
from training.data import iterate_rows, sources_of
from training.runs.resources import GOES_ON, disk_limit
from training.scores.answering import answer_all, open_journal, settings_of, shown_picture
from training.scores.recording import given_command
from training.scores.selection import Options, listed
from vlm.chat.assistant import load_assistant
from vlm.config_reader import read_yaml
from vlm.errors import UserError
from vlm.locks import alone_in
from vlm.model.adapter_folder import find_adapter
from vlm.model.aligner import Aligner
from vlm.model.alignment import find_aligner, load_aligner_model
from vlm.terminal import command
from vlm.whole_files import write_json

log = logging.getLogger("training")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Captions, scores, two parquet files, report.json."""
    data, output = arguments.data, arguments.output
    if arguments.shuffled and (data / f"{KEPT}.parquet").exists() and not is_own(output / "report.json"):
        raise UserError(
            f"--shuffled would put texts that are known to be wrong in place of {data / KEPT}.parquet. Measure in a copy "
            "of the data folder."
        )
    there = {source for source, _ in sources_of(data)}
    asked = [arguments.known, *arguments.pictures, *arguments.texts]
    if missing := [name for name in asked if name not in there]:
        raise UserError(
            f"{data} has no source {', '.join(missing)}. It has: {', '.join(sorted(there))}. Name others with --known, "
            "--pictures and --texts."
        )
    aligner = load_aligner_model(arguments.aligner, "cuda" if torch.cuda.is_available() else "cpu")
    trained = read_yaml(find_aligner(arguments.aligner) / "config.yaml").get("training") or {}
    check_watched(trained.get("validation_share", WATCHED), f"The aligner {arguments.aligner}")
    threshold, known = calibrate(aligner, data, arguments.known)
    untold = without_captions(data, arguments.pictures, arguments.limit)
    told = read_pairs(data, arguments.texts, WATCHED).train if arguments.texts else []
    texts = shuffled(claims_of(told, True if arguments.shuffled else None), arguments.shuffled, seed=0)
    captions = describe_all(untold, data, arguments.adapter, output)
    groups = {
        "captions": scored(aligner, data, captions, untold),
        "texts": scored(aligner, data, texts, told),
    }
    claims = [claim for group in groups.values() for claim in group]
    if not claims:
        raise UserError(
            "There are no captions to judge. Name sources with --pictures or --texts that have some."
        )
    report = {"command": given_command("training.bootstrap"), "threshold": threshold, "known": known}
    report |= {name: judged(group, threshold) for name, group in groups.items() if group}
    report["examples"] = {name: examples(group, threshold) for name, group in groups.items() if group}
    write_json(report, output / "report.json")  # before the files, which are then known to be of this command
    write(claims, threshold, data, [*arguments.pictures, *arguments.texts])
    if arguments.compare:
        report["training"] = compare_filtered(arguments.compare, data, arguments.known, output)
        write_json(report, output / "report.json")
    return report


def calibrate(aligner: Aligner, data: Path, source: str) -> tuple[float, dict[str, Any]]:
    """The threshold from half of the known pairs, and what it is worth on the other half."""
    pictures = read_pairs(data, [source], WATCHED).validation
    true = claims_of(pictures)
    if len({claim.picture for claim in true}) < 4:
        raise UserError(
            f"The source {source!r} has too few pictures with captions. Name another with --known."
        )
    every = scored(aligner, data, [*true, *shuffled(true, 1.0, seed=1)], pictures)
    first = {each.picture for each in pictures[::2]}
    chosen, measured = (
        [claim for claim in every if (claim.picture in first) == side] for side in (True, False)
    )
    scores = (torch.tensor([claim.score for claim in chosen if claim.true == side]) for side in (True, False))
    threshold = best_threshold(*scores)
    return threshold, judged(measured, threshold)


def without_captions(data: Path, sources: Sequence[str], limit: int) -> list[Captioned]:
    """At most `limit` training pictures of which nobody said anything, in an order that is the same everywhere."""
    found: dict[str, Captioned] = {}
    told: set[str] = set()
    for row, content in iterate_rows(data, "train", sources):
        if row.references:
            told.add(row.picture)
        elif row.picture not in found and is_picture(content):
            found[row.picture] = Captioned(row.picture, row.source)
    left = [each for name, each in found.items() if name not in told and hash_share(name) >= WATCHED]
    return sorted(left, key=lambda each: hash_share(each.picture))[:limit]


def describe_all(pictures: Sequence[Captioned], data: Path, adapter: str, output: Path) -> list[Claim]:
    """A caption for each, by the captioning adapter."""
    if not pictures:
        return []
    folder, options = find_adapter(adapter), Options(source="all")
    assistant = load_assistant(None, str(folder))
    try:
        journal = open_journal(assistant, folder, options, output / "captions.jsonl")
        contents = contents_of(data, pictures)
        shown = {name: shown_picture(name, content) for name, content in contents.items()}
        asked = [(each.picture, QUESTION) for each in pictures]
        replies = answer_all(assistant, asked, shown, settings_of(assistant, options), journal)
    finally:
        assistant.close()
    return [Claim(each.picture, replies[each.picture, QUESTION].text, "adapter") for each in pictures]


def contents_of(data: Path, pictures: Sequence[Captioned]) -> dict[str, bytes]:
    wanted = {each.picture for each in pictures}
    rows = iterate_rows(data, "train", {each.source for each in pictures})
    return {row.picture: content for row, content in rows if row.picture in wanted}


def is_own(report: Path) -> bool:
    """Whether this very command has written the report before, and was killed since."""
    if not report.is_file():
        return False
    return json.loads(report.read_text(encoding="utf-8"))["command"] == given_command("training.bootstrap")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m training.bootstrap",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        default=Path("data/embedded"),
        help="folder of parquet files; two are written into it",
    )
    add(
        "--pictures",
        type=listed,
        default=[],
        help="sources whose pictures are captioned, with commas between",
    )
    add("--limit", type=int, default=500, help="pictures that are captioned at most")
    add("--texts", type=listed, default=[], help="sources whose texts may be wrong, with commas between")
    add(
        "--shuffled",
        type=float,
        default=0.0,
        help="share of those texts that are exchanged first, to measure the filter",
    )
    add("--known", default="flickr8k", help="a source whose captions are right, for the threshold")
    add("--aligner", default="embedded", help="what judges: a shipped aligner or a folder")
    add(
        "--adapter",
        default="embedded",
        help="what captions: a shipped adapter, a folder, or user/name on the hub",
    )
    add("--compare", metavar="PRESET", help="train this preset of training.align without, with, and with all")
    add("--output", type=Path, default=Path("runs/bootstrap"), help="folder of captions, report and runs")
    arguments = parser.parse_args()
    if not arguments.pictures and not arguments.texts:
        parser.error("--pictures or --texts is needed: what to bootstrap")
    if not 0 <= arguments.shuffled <= 1 or arguments.limit < 1:
        parser.error("--shuffled is a share from 0 to 1, and --limit 1 or more")
    return arguments


@command("bootstrap")
def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    arguments = parse()
    with alone_in(arguments.output), disk_limit(arguments.output, arguments.data, resume=GOES_ON):
        report = run(arguments)
    print(json.dumps({name: each for name, each in report.items() if name != "examples"}, indent=1))


if __name__ == "__main__":
    main()
