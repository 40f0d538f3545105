"""What a conversion leaves behind: parquet shards with the pictures inside, and how far it came.

In: rows, a record's at a time. Out: shards, each whole or not there at all, and `progress.json`, which is written
behind each of them. Neither time nor chance enters a shard, so that one made after a break is the
same, byte for byte. A row group is held in memory, not a shard.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from training.data import parquet_file
from vlm.errors import UserError
from vlm.whole_files import write_json

# Image bytes that wait for a row group; below the limit of a dictionary, so that each is kept once
BUFFER = 16 << 20
COLUMNS = (  # of those that prepare writes
    "image", "image_id", "question", "answer", "source", "kind", "split", "conversation", "turn", "task", "references",
)  # fmt: skip
SCHEMA = pa.schema([parquet_file.SCHEMA.field(name) for name in COLUMNS])


class Shard:
    """Rows -> one parquet file, which appears when the block ends without an error and there are rows."""

    def __init__(self, file: Path) -> None:
        self.file, self.partial = file, file.with_name(file.name + ".partial")
        self.rows = self.image_bytes = 0  # bytes of distinct neighbours
        self._waiting: list[dict[str, Any]] = []
        self._waiting_bytes = 0
        self._last = ""

    def __enter__(self) -> "Shard":
        self._writer = pq.ParquetWriter(
            self.partial,
            SCHEMA,
            compression="zstd",
            use_dictionary=True,
            dictionary_pagesize_limit=2 * BUFFER,
        )
        return self

    def add(self, rows: list[dict[str, Any]]) -> None:
        """The rows of one record."""
        for row in rows:
            size = len(row["image"]["bytes"])
            self.image_bytes += size if row["image_id"] != self._last else 0
            self._last = row["image_id"]
            self._waiting.append(row)
            self._waiting_bytes += size
            if self._waiting_bytes >= BUFFER:
                self._flush()
        self.rows += len(rows)

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._waiting, SCHEMA))
        self._waiting, self._waiting_bytes = [], 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            try:
                if kind is None:
                    self._flush()
            finally:
                self._writer.close()
            if kind is None and self.rows:
                self.partial.replace(self.file)
        finally:
            self.partial.unlink(missing_ok=True)


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
