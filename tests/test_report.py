"""From a model and parquet to the result file, its report and the contact sheet, with the tiny model."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from tests.tiny import picture, tiny_config, tiny_model
from training.compare import compare, read_result
from training.evaluate import describe, evaluate_model, record
from training.report import write_report
from training.scores.answering import other_pictures
from training.scores.contact_sheet import HEIGHT, MAX_TILES, WIDTH, chosen, contact_sheet
from training.scores.selection import Options
from vlm.errors import UserError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three pictures, each asked for its name, for a yes and for a no."""
    rows = []
    for name in ("red", "blue", "lime"):
        content = io.BytesIO()
        picture(name).save(content, "PNG")
        turns = [
            ("name", "What is this?", f"A {name}."),
            ("yes", f"Is it {name}?", "Yes."),
            ("no", "Is it pink?", "No."),
        ]
        for task, question, answer in turns:
            row = {
                "image": {"bytes": content.getvalue(), "path": name},
                "question": question,
                "answer": answer,
            }
            row |= {
                "task": task,
                "source": "tiny",
                "kind": "drawing",
                "style": "flat",
                "noun": name,
                "accepted": [],
            }
            rows += [row | {"split": "train"}, row | {"split": "test"}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "tiny.parquet")
    return tmp_path


def test_an_evaluation_has_every_measure_and_a_report(data: Path) -> None:
    result = evaluate_model(tiny_model(), tiny_config(), data, Options("all", task="all", thorough=True))
    assert result["questions"] == 9
    for name in ("accuracy", "blank_picture", "question_only", "shuffled_pictures"):
        assert result[name]["of"] == 9
    assert result["question_only"]["right"] >= 3  # "Is it pink?" was always answered with no
    metrics = result["metrics"]
    assert metrics["perplexity"]["value"] > 1
    assert metrics["ended_by_itself"]["of"] == metrics["words"]["of"] == 9
    assert metrics["balanced_accuracy"]["of"] == 6
    assert metrics["noun_accuracy"]["of"] == 3
    assert {name: set(named) for name, named in result["by"].items()} == {
        "task": {"name", "yes_no"}, "kind": {"drawing"}, "style": {"flat"}, "source": {"tiny"}
    }  # fmt: skip
    item = result["answers"][0]
    assert item.keys() >= {
        "picture",
        "question",
        "truth",
        "answer",
        "task",
        "kind",
        "references",
        "right",
        "scores",
    }
    assert "question_only" in describe(result)

    file = data / "result.json"
    file.write_text(json.dumps(result))
    assert compare(read_result(file)["answers"], result["answers"])["mcnemar_p"] == 1
    sheet, report = write_report(result, "tiny", data, data / "report")
    assert Image.open(sheet).size == (6 * WIDTH, 2 * HEIGHT)
    text = report.read_text()
    assert "contact-sheet.png" in text and "SPICE is left out" in text and "| yes_no | 6 |" in text

    record(data, result, "python -m training.evaluate")
    kept = json.loads((data / "metrics.json").read_text())["all/test, task all"]
    assert "answers" not in kept and kept["accuracy"] == result["accuracy"]


def test_clean_answers_in_keywords_without_the_slow_measures(data: Path) -> None:
    options = Options("tiny", limit=2, answers="clean", style="keywords", temperature=0.5)
    config = tiny_config()
    result = evaluate_model(tiny_model(), config, data, options)
    assert result["shuffled_pictures"] is None and result["metrics"]["perplexity"]["value"] is None
    assert [item["references"][0] for item in result["answers"]] == ["red", "blue"]
    again = evaluate_model(tiny_model(), config, data, options)
    assert again["answers"] == result["answers"]


def test_a_task_that_the_split_lacks_is_an_error(data: Path) -> None:
    with pytest.raises(UserError, match="no rows of tiny, split test, task colour"):
        evaluate_model(tiny_model(), tiny_config(), data, Options("tiny", task="colour"))


def test_shuffled_pictures_are_never_the_own() -> None:
    names = [f"p{number}" for number in range(50)]
    other = other_pictures([*names, *names])
    assert set(other) == set(other.values()) == set(names)
    assert all(own != given for own, given in other.items())
    assert other == other_pictures(names[::-1])
    assert other_pictures(["p"]) == {}


def test_the_contact_sheet_holds_wrong_ones_first_and_survives_a_missing_picture() -> None:
    items = [
        {
            "picture": str(number),
            "question": "What? " * 40,
            "answer": "W" * 99,
            "truth": "",
            "right": number % 2 == 0,
        }
        for number in range(MAX_TILES + 20)
    ]
    shown = chosen(items)
    assert len(shown) == MAX_TILES
    assert [item["right"] for item in shown] == [False] * 40 + [True] * 20
    sheet = contact_sheet(shown, {"1": b"no picture"})
    assert sheet.size == (6 * WIDTH, 10 * HEIGHT)
