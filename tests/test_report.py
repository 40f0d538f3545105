"""From a result file, or the folder of a suite, to the report and the contact sheet."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.fake_assistant import FakeAssistant, result_of, write_colours, write_data
from training import report as command
from training.compare import compare
from training.report import draw_sheet, read_suite, write_report
from training.scores.contact_sheet import MAX_TILES, chosen, drawn
from training.scores.results import read_result
from training.scores.selection import rows_of
from vlm.errors import UserError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_colours(tmp_path / "data")


def item(number: int, right: bool | None, kind: str = "photo", run: str = "") -> dict[str, Any]:
    return {"picture": f"{run}{number}", "question": "What? " * 40, "answer": "W" * 99, "truth": "", "right": right,
            "kind": kind}  # fmt: skip


def test_a_result_becomes_a_report_with_tables_and_a_sheet(data: Path) -> None:
    result = result_of(FakeAssistant(), data, thorough=True)
    file = data / "result.json"
    file.write_text(json.dumps(result))
    assert compare(read_result(file)["answers"], result["answers"])["mcnemar_p"] == 1
    sheet, report = write_report([result], [], "tiny", data, data / "report")
    assert Image.open(sheet).size == (1440, 840)  # six tiles a row, and two rows
    text = report.read_text()
    assert "contact-sheet.png" in text and "SPICE is left out" in text and "| yes_no | 6 |" in text
    assert "| its drafts, before the clean-up | 6 | 9 | 66.7% |" in text
    assert "looking at another question's picture | 3 |" in text
    assert "clean-up: accepted 9" in text
    assert "| balanced_accuracy | 50.0% |" in text


def test_captions_have_a_report_without_a_table_of_right_answers(data: Path) -> None:
    write_data(data, {"red": [("describe", "Describe the picture.", "A dog runs.")]}, source="captions")
    rows_of.cache_clear()
    result = result_of(FakeAssistant(), data, source="captions")
    (report,) = write_report([result], [], "tiny", None, data / "report")
    text = report.read_text()
    shown = f"{100 * result['metrics']['cider']['value']:.1f}"
    assert f"| cider | {shown} | " in text and f"| {shown} |\n" in text
    assert "Right answers" not in text and "| cider | " in text and "| describe | 1 | - |" in text


def test_a_suite_becomes_one_report(data: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    suite = data / "suite"
    suite.mkdir()
    for name, task in (("names", "name"), ("polar", "yes_no")):
        result = {"adapter": "runs/mine/adapter"} | result_of(FakeAssistant(), data, task=task)
        (suite / f"{name}.json").write_text(json.dumps(result))
    goal = {"what": "right name", "measure": "accuracy", "n": 3, "answer": 1.0, "low": 0.9, "high": 1.0, "draft": 1.0,
            "blank_picture": 0.0, "question_only": 0.3, "at_least": 0.5, "at_most": None, "met": True}  # fmt: skip
    (suite / "goals.json").write_text(json.dumps({"runs": ["names", "polar"], "goals": [goal]}))
    monkeypatch.setattr(
        sys, "argv", ["report", str(suite), "--folder", str(data), "--output", str(data / "report")]
    )
    command.main()
    text = (data / "report" / "report.md").read_text()
    assert text.startswith("# mine\n")  # the run, whose folder training calls adapter
    assert "## Goals" in text and "right name" in text
    assert text.count("### Right answers beside their baselines") == 2
    assert "contact-sheet.png" in capsys.readouterr().out
    (suite / "goals.json").unlink()
    with pytest.raises(UserError, match="is not the folder of"):
        read_suite(suite)


def test_the_contact_sheet_holds_wrong_ones_first_and_survives_a_missing_picture(tmp_path: Path) -> None:
    items = [item(number, number % 2 == 0) for number in range(60)]
    shown = chosen(items)
    assert len(shown) == MAX_TILES
    assert [each["right"] for each in shown] == [False] * 30 + [True] * 10
    captions = chosen([item(number, None) for number in range(100)])
    assert len(captions) <= MAX_TILES and captions[-1]["picture"] > "90"
    draw_sheet(captions[:3], {captions[0]["picture"]: b"no picture"}, tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size == (720, 420)


def test_the_sheet_of_a_suite_draws_as_many_photographs_of_each_run() -> None:
    runs = [[item(number, number < 15, run=run) for number in range(30)] for run in "ab"]
    runs += [[item(number, True, "synthetic") for number in range(30)], []]
    shown = drawn(runs)
    assert len(shown) == len({each["picture"] for each in shown}) == MAX_TILES
    assert {run: sum(each["picture"].startswith(run) for each in shown) for run in "ab"} == {"a": 20, "b": 20}
    assert {each["right"] for each in shown} == {True, False}
    assert shown == drawn(runs)
    assert drawn([[]]) == []
