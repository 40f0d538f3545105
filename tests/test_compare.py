"""Two results over the same questions: the difference is paired, and other questions are an error."""

import json
from pathlib import Path
from typing import Any

import pytest

from training.compare import compare, comparison_text
from training.data import Row
from training.scores.items import make_items
from training.scores.results import read_result
from vlm.errors import UserError


def items(answers: str) -> list[dict[str, Any]]:
    """A letter for each picture: r for right, else wrong."""
    rows = [
        Row(f"p{number}", "What is this?", "A cat.", "s", "photo", "cat", (), task="name")
        for number in range(len(answers))
    ]
    return make_items(rows, ["A cat." if letter == "r" else "A dog." for letter in answers])


def test_the_difference_is_paired_and_has_mcnemars_p() -> None:
    first, second = items("rrrrrwwwww"), items("rrrrrrrrww")
    result = compare(first, second[::-1])
    accuracy = result["metrics"]["accuracy"]
    assert (accuracy["a"], accuracy["b"]) == (0.5, 0.8)
    assert accuracy["difference"] == pytest.approx(0.3)
    assert accuracy["low"] == pytest.approx(0.0, abs=0.11)
    assert (
        accuracy["low"] >= 0
    )  # no picture is answered worse, so no resample is: the draws are the same for both
    assert (result["both_right"], result["only_a_right"], result["only_b_right"]) == (5, 0, 3)
    assert result["mcnemar_p"] == pytest.approx(2 / 2**3)
    assert [each["picture"] for each in result["examples"]] == ["p5", "p6", "p7"]
    assert "only B right: What is this? [cat]" in comparison_text(result, 1)
    assert "and 2 more" in comparison_text(result, 1)


def test_captions_differ_by_their_measures_and_by_no_verdict() -> None:
    rows = [
        Row(f"p{number}", "Describe it.", "", "s", "photo", "", (), task="describe", references=(text,))
        for number, text in enumerate(["A dog runs fast.", "A cat sleeps here.", "Two men ride home."])
    ]
    good = [each.references[0] for each in rows]
    result = compare(make_items(rows, ["A dog."] * 3), make_items(rows, good))
    assert "accuracy" not in result["metrics"] and not result["examples"]
    assert result["metrics"]["cider"]["difference"] > 0
    assert result["differing_answers"] == 3


def test_a_result_does_not_differ_from_itself() -> None:
    result = compare(items("rwr"), items("rwr"))
    assert all(each["difference"] == each["low"] == each["high"] == 0 for each in result["metrics"].values())
    assert result["mcnemar_p"] == 1
    assert not result["examples"]


def test_a_question_that_only_one_has_is_an_error_that_counts_them() -> None:
    with pytest.raises(UserError, match="2 are only in the first and 0 only in the second"):
        compare(items("rrrr"), items("rr"))


def test_a_question_that_is_asked_twice_is_compared_twice() -> None:
    twice = items("r") + items("w")
    assert compare(twice, twice)["questions"] == 2
    with pytest.raises(UserError, match="1 are only in the first"):
        compare(twice, items("r"))


def test_a_file_without_scores_says_how_to_make_one(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    for content in ("{", "[]", '{"answers": []}', json.dumps({"answers": [{"answer": "x"}]})):
        file.write_text(content)
        with pytest.raises(UserError, match=r"python -m training\.evaluate"):
            read_result(file)
    with pytest.raises(UserError, match=r"^There is no file .*missing.json. Check its path.$"):
        read_result(tmp_path / "missing.json")
    file.write_text(json.dumps({"answers": items("r")}))
    assert len(read_result(file)["answers"]) == 1
