"""Files and folders that are written: whole, or what was there before; what a killed process left is in nobody's way."""

import json
from pathlib import Path

import pytest

from vlm.whole_files import whole_file, whole_folder, write_json, write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "told.json"
    write_whole(file, "before")
    with pytest.raises(KeyboardInterrupt), whole_file(file) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert file.read_text() == "before" and names(tmp_path) == ["told.json"]
    (tmp_path / "told.json.partial").write_text("half of what a killed process wrote")
    write_whole(file, "after")
    assert file.read_text() == "after" and names(tmp_path) == ["told.json"]


def test_values_are_written_for_people_and_read_the_same_again(tmp_path: Path) -> None:
    """With the name of a file that is not UTF-8 among them, as Python tells it."""
    values = {"question": "Größe? 猫", "file": b"\xff.png".decode(errors="surrogateescape")}
    write_json(values, tmp_path / "new" / "told.json")
    text = (tmp_path / "new" / "told.json").read_text(encoding="utf-8")
    assert "Größe? 猫" in text and text.endswith("}\n")
    assert json.loads(text) == values


def test_a_folder_is_written_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    with whole_folder(folder) as partial:
        (partial / "config.yaml").write_text("before")
    with pytest.raises(KeyboardInterrupt), whole_folder(folder) as partial:
        (partial / "weights").write_text("half")
        raise KeyboardInterrupt
    assert names(folder) == ["config.yaml"] and names(tmp_path) == ["adapter"]
    with whole_folder(folder) as partial:
        (partial / "weights").write_text("after")
    assert names(folder) == ["weights"] and names(tmp_path) == ["adapter"]


def test_what_a_process_left_that_was_killed_while_it_wrote_a_folder_is_tidied(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    with whole_folder(folder) as partial:
        (partial / "limits.md").write_text("by hand")
    folder.rename(tmp_path / ".adapter.old")  # as between the two renames
    (tmp_path / ".adapter.partial").mkdir()
    (tmp_path / ".adapter.partial" / "weights").write_text("half")
    with whole_folder(folder) as partial:
        assert not list(partial.iterdir())
        assert (folder / "limits.md").read_text() == "by hand"
        (partial / "weights").write_text("after")
    assert names(folder) == ["weights"] and names(tmp_path) == ["adapter"]
