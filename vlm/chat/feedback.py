"""What people thought of answers, kept in a folder: one small parquet file a vote, with the picture in it.

A vote's file is written under another name and renamed when whole, so that a kill leaves nothing half-written. Its key is
its file's name, which cannot be guessed: whoever has it may take the vote back. Nothing here says who voted.
"""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from more_itertools import chunked
from PIL import Image

from vlm.chat.answer import LONGEST_QUESTION
from vlm.errors import UserError
from vlm.inputs.images import as_jpeg, open_image
from vlm.whole_files import whole_file

MEGABYTE = 2**20
PICTURE_SIDE = 1024  # pixels; training makes them smaller still
JPEG_QUALITY = 90
ROWS_AT_ONCE = 32  # with their pictures in memory
COLUMNS = ("question", "answer", "right_answer", "thumb", "picture", "preset", "adapter", "time")
KEY = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Feedback:
    """One vote. `picture` is a JPEG, None where the answer was about none or about several."""

    question: str
    answer: str
    right_answer: str  # "" where none was given
    thumb: Literal["up", "down"]
    picture: bytes | None
    preset: str
    adapter: str
    time: datetime


def feedback_on(
    question: str, answer: str, right_answer: str, thumb: str, picture: str | None, preset: str, adapter: str
) -> Feedback:
    """The vote as it is kept, with the picture of that path encoded anew. Raises UserError."""
    if thumb not in ("up", "down"):
        raise UserError("A thumb is up or down.")
    right_answer = right_answer.strip() if thumb == "down" else ""
    if len(right_answer) > LONGEST_QUESTION:
        raise UserError(
            f"The right answer has {len(right_answer):,} characters and at most {LONGEST_QUESTION:,} are kept. Please "
            "shorten it."
        )
    content = encoded(open_image(picture)) if picture else None
    return Feedback(question, answer, right_answer, thumb, content, preset, adapter, datetime.now(UTC))  # type: ignore


def encoded(image: Image.Image) -> bytes:
    """RGB -> a JPEG of the pixels alone: where a photograph was taken is not kept."""
    image = image.copy()
    image.info = {}
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.LANCZOS)
    return as_jpeg(image, JPEG_QUALITY)


def check_writable(folder: Path) -> None:
    """Make the folder if it is not there. Raises UserError where nothing can be written to it."""
    trial = folder / f"{secrets.token_hex(8)}.trial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"")
        trial.unlink()
    except OSError as problem:
        raise UserError(
            f"FEEDBACK: nothing can be written to the folder {str(folder)!r} ({problem.strerror}). Choose another, or "
            "change its permissions."
        ) from problem


class FeedbackFolder:
    """All votes, which take at most `most_bytes`."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        self._lock = Lock()

    def keep(self, vote: Feedback) -> str:
        """-> its key. Raises UserError where there is no room for it."""
        content, key = _to_parquet([vote]), secrets.token_hex(16)
        with self._lock:
            if sum(map(_size, self.folder.glob("*"))) + len(content) > self.most_bytes:
                raise UserError(
                    f"The place for feedback is full ({self.most_bytes // MEGABYTE:,} MB), so this was not kept. Whoever "
                    "runs this page can make room."
                )
            _write(self._file(key), content)
        return key

    def take_back(self, key: str) -> None:
        """Delete one vote; one that was deleted before is as good."""
        if KEY.fullmatch(key):
            self._file(key).unlink(missing_ok=True)

    def delete_all(self) -> int:
        """-> how many votes there were. Files of others are left alone."""
        files = _vote_files(self.folder)
        for file in [*files, *self.folder.glob("*.parquet.partial")]:
            file.unlink(missing_ok=True)
        return len(files)

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.parquet"


def read_feedback(folder: Path) -> Iterator[Feedback]:
    """All votes of a folder, or of files that were exported into it, by their time within each file. Raises UserError."""
    import pyarrow
    import pyarrow.parquet as parquet

    if not folder.is_dir():
        raise UserError(f"There is no folder {str(folder)!r}. Give the one that FEEDBACK names.")
    for file in sorted(folder.glob("*.parquet")):
        try:
            opened = parquet.ParquetFile(file)
            missing = [name for name in COLUMNS if name not in opened.schema_arrow.names]
            if missing:
                raise UserError(f"{file} is no feedback: it has no column {', '.join(missing)}.")
            for batch in opened.iter_batches(batch_size=ROWS_AT_ONCE, columns=list(COLUMNS)):
                yield from (Feedback(**row) for row in batch.to_pylist())
        except FileNotFoundError:
            continue  # it was taken back meanwhile
        except (pyarrow.ArrowException, OSError) as problem:
            if isinstance(problem, OSError) and problem.errno:  # none where it is pyarrow's own
                raise UserError(f"{file} cannot be read ({problem.strerror}).") from problem
            raise UserError(f"{file} is not a whole parquet file. Delete it.") from problem


def export(folder: Path, to: Path) -> int:
    """Write all votes into one parquet file, whole or not at all. -> how many there are"""
    import pyarrow.parquet as parquet

    if to.absolute().parent.resolve() == folder.resolve():
        raise UserError("The export would count as feedback there. Choose a file in another folder.")
    count = 0
    try:
        with (
            whole_file(to) as partial,
            parquet.ParquetWriter(partial, _schema(), compression="zstd") as writer,
        ):
            for votes in chunked(read_feedback(folder), ROWS_AT_ONCE):
                writer.write_table(_table(votes))
                count += len(votes)
    except OSError as problem:
        raise UserError(
            f"{str(to)!r} cannot be written ({problem.strerror}). Choose another file."
        ) from problem
    return count


def _schema() -> Any:
    import pyarrow as pa

    kinds = {"picture": pa.binary(), "time": pa.timestamp("us", tz="UTC")}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])


def _table(votes: list[Feedback]) -> Any:
    import pyarrow

    return pyarrow.Table.from_pylist([asdict(vote) for vote in votes], _schema())


def _to_parquet(votes: list[Feedback]) -> bytes:
    import pyarrow.parquet as parquet

    sink = BytesIO()
    parquet.write_table(_table(votes), sink, compression="zstd")
    return sink.getvalue()


def _write(file: Path, content: bytes) -> None:
    try:
        with whole_file(file) as partial, partial.open("wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
    except OSError as problem:
        raise UserError(
            f"This could not be kept: the server cannot write it ({problem.strerror}). Whoever runs this page can "
            "mend that."
        ) from problem


def _vote_files(folder: Path) -> list[Path]:
    return [file for file in folder.glob("*.parquet") if KEY.fullmatch(file.stem)]


def _size(file: Path) -> int:
    with suppress(OSError):  # it was taken back meanwhile
        return file.stat().st_size
    return 0
