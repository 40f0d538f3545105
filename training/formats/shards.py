"""What a conversion leaves behind: parquet shards with the pictures inside, and how far it came.

In: rows, a record's at a time. Out: shards, each whole or not there at all, and `progress.json`, which is written
behind each of them. Neither time nor chance enters a shard, so that one made after a break is the
same, byte for byte. A row group is held in memory, not a shard.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from training.data import parquet_file
from vlm.errors import UserError
from vlm.whole_files import write_json

# Image bytes that wait for a row group; below the limit of a dictionary, so that each is kept once
BUFFER = parquet_file.DICTIONARY // 2
COLUMNS = (  # of those that prepare writes
    "image", "image_id", "question", "answer", "source", "kind", "split", "conversation", "turn", "task", "references",
    "accepted", "objects",
)  # fmt: skip
SCHEMA = pa.schema([parquet_file.SCHEMA.field(name) for name in COLUMNS])


class Shard:
    """Rows -> the row groups of one parquet file, which `writer` begins."""

    def __init__(self, writer: Callable[[], pq.ParquetWriter]) -> None:
        self._writer = cache(writer)
        self.rows = self.image_bytes = 0  # bytes of distinct neighbours
        self._waiting: list[dict[str, Any]] = []
        self._waiting_bytes = 0
        self._last = ""

    def add(self, rows: list[dict[str, Any]]) -> None:
        """The rows of one record."""
        for row in rows:
            size = len(row["image"]["bytes"])
            self.image_bytes += size if row["image_id"] != self._last else 0
            self._last = row["image_id"]
            self._waiting.append(row)
            self._waiting_bytes += size
            if self._waiting_bytes >= BUFFER:
                self.flush()
        self.rows += len(rows)

    def flush(self) -> None:
        if self._waiting:
            self._writer().write_table(pa.Table.from_pylist(self._waiting, SCHEMA))
            self._waiting, self._waiting_bytes = [], 0


@contextmanager
def shard_in(file: Path) -> Iterator[Shard]:
    """The shard appears when the block ends without an error and there are rows."""
    with ExitStack() as opened:
        shard = Shard(lambda: opened.enter_context(parquet_file.parquet_writer(file, SCHEMA)))
        yield shard
        shard.flush()


@dataclass
class Progress:
    """How far a conversion came, at the end of its last whole shard."""

    arguments: dict[str, Any]
    records: int = 0
    rows: int = 0
    shards: int = 0
    skipped_bytes: int = 0  # of skipped.jsonl
    finished: bool = False

    def save(self, out: Path) -> None:
        write_json(asdict(self), out / "progress.json")


def load_progress(out: Path, arguments: dict[str, Any]) -> Progress:
    """What an earlier run with the same arguments left in `out`; otherwise a beginning."""
    file = out / "progress.json"
    if file.is_file():
        earlier = Progress(**json.loads(file.read_text(encoding="utf-8")))
        if earlier.arguments == arguments:
            return earlier
        if earlier.shards:
            keys = arguments.keys() | earlier.arguments.keys()
            changed = sorted(key for key in keys if arguments.get(key) != earlier.arguments.get(key))
            raise UserError(
                f"{out} holds another conversion ({', '.join(changed)} differ). Choose another folder with --output."
            )
    elif there := sorted(out.glob(f"{arguments['source']}-*.parquet")):
        raise UserError(
            f"{there[0]} is there already, and not from this command. Choose another folder with --output."
        )
    return Progress(arguments)
