"""Claims that were judged -> two sources of a data folder, which training.align and training.finetune read like others."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from more_itertools import chunked

from training.bootstrapping.matching import Claim
from training.data import iterate_rows
from training.data.parquet_file import ROWS_PER_GROUP, SCHEMA, parquet_writer
from training.wording.questions import DESCRIBE

KEPT, DROPPED = "bootstrapped", "bootstrapped-dropped"
QUESTION = DESCRIBE[0]


def write(claims: Sequence[Claim], threshold: float, data: Path, sources: Sequence[str]) -> None:
    """A row for each picture with texts that are kept, and one for each with texts that are dropped, as two sources."""
    texts: dict[str, dict[str, list[str]]] = {KEPT: {}, DROPPED: {}}
    for claim in claims:
        side = texts[KEPT if claim.score >= threshold else DROPPED]
        side.setdefault(claim.picture, []).append(claim.text)
    for source, of_pictures in texts.items():
        with parquet_writer(data / f"{source}.parquet") as writer:
            rows = rows_of(of_pictures, source, data, sources)
            for some in chunked(rows, ROWS_PER_GROUP):
                writer.write_table(pa.Table.from_pylist(some, SCHEMA))


def rows_of(
    texts: Mapping[str, Sequence[str]], source: str, data: Path, sources: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """As training.data.parquet_file has them; `style` is the source that the picture is from."""
    written: set[str] = set()
    for row, content in iterate_rows(data, "train", sources):
        if row.picture in texts and row.picture not in written:
            written.add(row.picture)
            own = list(texts[row.picture])
            image = {"bytes": content, "path": f"{source}/{row.picture}"}
            told = {"image": image, "image_id": row.picture, "source": source, "style": row.source}
            asked = {"task": "describe", "question": QUESTION, "answer": own[0], "references": own}
            yield told | asked | {"kind": row.kind, "split": "train"}
