"""What people thought of answers (vlm/chat/feedback.py) -> pictures with the questions whose right answers are known.

In: the folder that the page's FEEDBACK names, or one of exported files. Out: all of split `train`, since corrections are
there to be learned. The answer under a thumb up is right, and so is the one that was given beside a thumb down. All votes
about one picture are one picture, and of two about the same question the later one counts.
"""

import hashlib
from collections import Counter, defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path

from training.picture import Picture, Row
from training.sources.photographs import JPEG_QUALITY, load
from vlm.chat.feedback import Feedback, read_feedback
from vlm.errors import UserError
from vlm.inputs.images import as_jpeg, open_image

NAME = "feedback"


def read(folder: Path) -> tuple[list[Picture], str]:
    """-> the pictures, and what became of the votes, for people. Raises UserError where none can be used."""
    left_out: Counter[str] = Counter()
    # The small JPEGs that are trained on; they take a tenth of the memory of what was kept
    contents: dict[str, bytes] = {}
    latest: dict[tuple[str, str], Feedback] = {}
    votes = 0
    for vote in read_feedback(folder):
        votes += 1
        try:
            content = small(vote.picture) if vote.picture else None
        except UserError:
            left_out["with a picture that cannot be read"] += 1
            continue
        if content is None:
            left_out["without a picture"] += 1
            continue
        picture = hashlib.sha256(content).hexdigest()
        contents[picture] = content
        asked = picture, " ".join(vote.question.lower().split())
        if before := latest.get(asked):
            left_out["on a question that has a later one"] += 1
        if before is None or before.time <= vote.time:
            latest[asked] = replace(vote, picture=None)
    rows: dict[str, list[Row]] = defaultdict(list)
    for (picture, question), vote in latest.items():
        answer = (vote.answer if vote.thumb == "up" else vote.right_answer).strip()
        if question and answer:
            rows[picture].append(Row("", vote.question.strip(), answer))
        else:
            left_out["thumbs down without a right answer" if question else "without a question"] += 1
    told = f"{votes:,} votes: {sum(map(len, rows.values())):,} are rows, on {len(rows):,} pictures."
    if left_out:
        told += " Left out: " + ", ".join(f"{count:,} {why}" for why, count in left_out.items()) + "."
    if not rows:
        raise UserError(f"{folder} holds nothing to train on. {told}")
    return [make_picture(name, contents[name], rows[name]) for name in sorted(rows)], told


def small(content: bytes) -> bytes:
    """The picture's file -> a JPEG as photographs.py stores them."""
    return as_jpeg(load(content), JPEG_QUALITY)


def make_picture(name: str, content: bytes, rows: list[Row]) -> Picture:
    return Picture(
        path=f"{NAME}/{name[:16]}.jpg",
        source=NAME,
        style=NAME,
        kind="photo",
        load=partial(open_image, content),
        turns=tuple(rows),
        split="train",
        stored=lambda image: content,
    )
