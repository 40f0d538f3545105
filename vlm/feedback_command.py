"""What people thought of answers, for whoever runs the page: python -m vlm feedback export FILE, or delete"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from vlm.chat.feedback import MEGABYTE, FeedbackFolder, export
from vlm.errors import UserError


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
