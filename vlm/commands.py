"""The shell's commands besides a question: python -m vlm search ..., and classify and feedback alike"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vlm.chat.feedback import MEGABYTE, FeedbackFolder, export
from vlm.chat.index import Found, PictureIndex
from vlm.chat.search import Searcher, check_query, load_aligner, split_names
from vlm.errors import UserError
from vlm.terminal import to_json

BAR = 30  # characters of a probability of 1
USAGE = """\
find pictures, or tell one apart by names:
  python -m vlm search WORDS --folder FOLDER [--picture FILE] [--index FILE] [--count N] [--json]
  python -m vlm classify PICTURE --names "cat, dog, bird" [--json]
each with [--aligner NAME]; --help after its name explains it.
what the thumbs of the page have kept:
  python -m vlm feedback export FILE --folder FOLDER
  python -m vlm feedback delete --folder FOLDER
"""


def search(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m vlm search", description="Find pictures by words, by another picture, or by both."
    )
    parser.add_argument(
        "words", nargs="?", default="", help="what to look for; may be left out with --picture"
    )
    parser.add_argument("--picture", metavar="FILE", help="find pictures like this one")
    parser.add_argument(
        "--folder", help="the folder to search in; it is indexed once, and then only what changed"
    )
    parser.add_argument(
        "--index", metavar="FILE", help="a saved index; with --folder, where its index is kept"
    )
    parser.add_argument("--count", type=int, default=10, help="how many pictures to show")
    _add_shared(parser)
    chosen = parser.parse_args(arguments)
    if not chosen.folder and not chosen.index:
        parser.error("--folder or --index is needed: where to search")
    check_query(chosen.words, chosen.picture)  # before minutes of indexing
    searcher = load_aligner(chosen.aligner)
    index = _index(searcher, chosen.folder, chosen.index)
    found = searcher.search(chosen.words, chosen.picture, index=index, count=chosen.count)
    if chosen.json:
        print(to_json([{"path": each.path, "score": each.score} for each in found]))
    else:
        print("\n".join(f"{each.score:6.3f}  {_short(each)}" for each in found))


def classify(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m vlm classify", description="Say how likely a picture shows each of some names."
    )
    parser.add_argument("picture", help="the picture's file")
    parser.add_argument("--names", required=True, help='the names to choose from, as in "cat, dog, bird"')
    _add_shared(parser)
    chosen = parser.parse_args(arguments)
    probable = load_aligner(chosen.aligner).classify(chosen.picture, split_names(chosen.names))
    if chosen.json:
        print(to_json(dict(probable)))
        return
    width = max(len(name) for name, _ in probable)
    for name, probability in probable:
        print(f"{name:{width}}  {probability:6.1%}  {'█' * round(BAR * probability)}".rstrip())


def feedback(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m vlm feedback", description="Export or delete all that the page's thumbs have kept."
    )
    what = parser.add_subparsers(dest="what", required=True)
    out = what.add_parser("export", help="write all of it into one parquet file")
    out.add_argument("file", type=Path, help="the parquet file; one that is there is replaced")
    gone = what.add_parser("delete", help="delete all of it, for good")
    for each in (out, gone):
        each.add_argument(
            "--folder", default=os.environ.get("FEEDBACK"), help="where it is kept; default: $FEEDBACK"
        )
    chosen = parser.parse_args(arguments)
    if not chosen.folder:
        parser.error("--folder is needed: where the feedback is kept")
    folder = Path(chosen.folder)
    if not folder.is_dir():
        raise UserError(f"There is no folder {chosen.folder!r}. Give the one that FEEDBACK names.")
    if chosen.what == "export":
        print(f"Votes in {chosen.file}: {export(folder, chosen.file):,}.")
    else:
        print(f"Votes that were deleted: {FeedbackFolder(folder, MEGABYTE).delete_all():,}.")


COMMANDS = {"search": search, "classify": classify, "feedback": feedback}


def _add_shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--aligner", default="embedded", help="a shipped aligner, or the folder of one")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _index(searcher: Searcher, folder: str | None, file: str | None) -> PictureIndex:
    """The folder's index, kept in `file` or the cache; without a folder, the index in `file`. The report goes to stderr."""
    if not folder:
        return searcher.load_index(file or "")
    index = searcher.index(folder, file, _show_progress if sys.stderr.isatty() else None)
    print(*index.report.sentences(len(index)), file=sys.stderr)
    return index


def _show_progress(done: int, total: int) -> None:
    print(f"\r{done:,} of {total:,} pictures", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _short(found: Found) -> str:
    """The path from here, where that is shorter."""
    try:
        return min(found.path, os.path.relpath(found.path), key=len)
    except ValueError:  # on another drive
        return str(Path(found.path))
