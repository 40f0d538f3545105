"""Parquet files that people made themselves: pictures known by their bytes alone, and wrong columns told in a sentence."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from tests.tiny import picture
from training.data import read_rows
from vlm.errors import UserError


def png(colour: str) -> bytes:
    content = io.BytesIO()
    picture(colour).save(content, "PNG")
    return content.getvalue()


def row(**values: object) -> dict:
    known = {"image": {"bytes": png("red"), "path": ""}, "question": "Q?", "answer": "A.", "source": "mine"}
    return known | {"split": "train"} | values


def written(folder: Path, *rows: dict) -> Path:
    parquet.write_table(pa.Table.from_pylist(list(rows)), folder / "mine.parquet")
    return folder


def test_ids_that_are_numbers_or_come_twice_change_nothing(tmp_path: Path) -> None:
    blue = {"bytes": png("blue"), "path": ""}
    data = written(tmp_path, row(image_id=1), row(image_id=1, image=blue), row(image_id=2))
    one, other, same = (each.picture for each in read_rows(data, "train"))
    assert one == same != other


def test_sources_and_splits_may_be_of_any_kind_and_pictures_bare_bytes(tmp_path: Path) -> None:
    written(tmp_path, row(source=1, image=png("red")), row(source=2, image=png("red")))
    table = parquet.read_table(tmp_path / "mine.parquet")
    split = table["split"].combine_chunks().dictionary_encode()
    parquet.write_table(table.set_column(4, "split", split), tmp_path / "mine.parquet")
    rows = read_rows(tmp_path, "train", "2")
    assert [(each.source, each.place) for each in rows] == [("2", "mine.parquet, row 2")]


@pytest.mark.parametrize("name", ["image", "question", "answer", "source", "split"])
def test_a_missing_column_is_named(tmp_path: Path, name: str) -> None:
    without = {key: value for key, value in row().items() if key != name}
    with pytest.raises(UserError, match=f"mine.parquet has no column {name}. Data need image, question"):
        read_rows(written(tmp_path, without), "train")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"image": None}, "bytes of the picture are missing"),
        ({"image": {"bytes": None, "path": "a.png"}}, "bytes of the picture are missing"),
        ({"question": None}, "no text"),
        ({"answer": 5}, "no text"),
    ],
)
def test_a_row_that_cannot_be_used_is_told_by_its_place(tmp_path: Path, values: dict, told: str) -> None:
    rows = [row(**({"answer": 1} if "answer" in values else {}))] if "answer" in values else [row()]
    place = 1 if "answer" in values else 2
    with pytest.raises(UserError, match=rf"mine\.parquet, row {place}: .*{told}"):
        read_rows(written(tmp_path, *rows, row(**values)), "train")


def test_what_is_no_parquet_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="not a whole parquet file"):
        read_rows(tmp_path, "train")
