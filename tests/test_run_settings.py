"""A run is trained with one set of settings: the same go on, others are refused by name, longer ones on request."""

import importlib
import json
import sys
from pathlib import Path

import pytest
from accelerate import PartialState

from training.digest import digest
from training.runs.run_settings import SETTINGS, claim_folder, differences
from vlm.errors import UserError
from vlm.locks import alone_in

BEFORE = {"seed": 0, "stage": {"rate": 0.1, "steps": 4}, "sources": [{"name": "a"}]}


def changed(**values: object) -> dict:
    return BEFORE | values


def test_the_same_settings_may_come_again(tmp_path: Path) -> None:
    for _ in range(2):
        assert claim_folder(tmp_path / "run", BEFORE, "Help.") == []
    assert json.loads((tmp_path / "run" / SETTINGS).read_text())["settings"] == BEFORE


def test_only_the_main_process_writes_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim_folder(tmp_path, BEFORE, "")
    written = (tmp_path / SETTINGS).stat().st_ino
    monkeypatch.setattr(PartialState, "is_main_process", False)
    assert claim_folder(tmp_path, BEFORE, "") == []
    assert (tmp_path / SETTINGS).stat().st_ino == written  # a file that is written anew is another one


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (changed(seed=7), "seed was 0 and is 7"),
        (changed(stage={"rate": 0.2, "steps": 4}), "stage.rate was 0.1 and is 0.2"),
        (changed(stage={"rate": 0.1, "steps": 12}), "stage.steps was 4 and is 12"),
        (changed(sources=[{"name": "b"}]), "sources.1.name was a and is b"),
        (changed(sources=[]), "sources.1.name was a and is not set"),
        (changed(new=1), "new was not set and is 1"),
        (changed(seed=1, new=1), "seed was 0 and is 1; new was not set and is 1"),
    ],
)
def test_other_settings_are_refused_and_nothing_is_written(tmp_path: Path, now: dict, told: str) -> None:
    claim_folder(tmp_path, BEFORE, "Help.")
    written = (tmp_path / SETTINGS).read_bytes()
    with pytest.raises(UserError, match=rf"other settings: {told}\. Help\."):
        claim_folder(tmp_path, now, "Help.")
    assert (tmp_path / SETTINGS).read_bytes() == written


def test_many_differences_are_counted(tmp_path: Path) -> None:
    found = differences({}, {f"s{number}": number for number in range(10)})
    assert len(found) == 10
    claim_folder(tmp_path, {}, "")
    with pytest.raises(UserError, match=r"s5 was not set and is 5; and 4 more"):
        claim_folder(tmp_path, {f"s{number}": number for number in range(10)}, "")


def test_a_longer_run_is_taken_where_it_was_asked_for_and_says_where_it_was_extended(tmp_path: Path) -> None:
    longer = changed(stage={"rate": 0.1, "steps": 12})
    claim_folder(tmp_path, BEFORE, "")
    assert claim_folder(tmp_path, longer, "", ("stage.steps",), done=4) == [4]
    assert claim_folder(tmp_path, longer, "", ("stage.steps",), done=9) == [
        4
    ]  # killed, and the same command again
    assert claim_folder(tmp_path, longer, "") == [4]
    with pytest.raises(UserError, match="Give a larger --extend"):
        claim_folder(tmp_path, BEFORE, "", ("stage.steps",), done=9)
    with pytest.raises(UserError, match="stage.rate was 0.1 and is 9"):
        claim_folder(tmp_path, changed(stage={"rate": 9, "steps": 99}), "", ("stage.steps",), done=9)


def test_a_length_that_was_not_reached_is_one_to_extend_to(tmp_path: Path) -> None:
    claim_folder(tmp_path, BEFORE, "")
    assert claim_folder(tmp_path, BEFORE, "", ("stage.steps",), done=4) == [4]
    assert claim_folder(tmp_path, BEFORE, "", ("stage.steps",), done=6) == [4]
    assert claim_folder(tmp_path, BEFORE, "") == [4]


def test_an_extended_run_is_told_how_it_goes_on(tmp_path: Path) -> None:
    claim_folder(tmp_path, {"joint_stage": {"max_steps": 6}}, "Help.")
    claim_folder(tmp_path, {"joint_stage": {"max_steps": 9}}, "Help.", ("joint_stage.max_steps",), done=6)
    with pytest.raises(UserError, match=r"max_steps was 9 and is 6\. Give --extend 9 again to go on"):
        claim_folder(tmp_path, {"joint_stage": {"max_steps": 6}}, "Help.")


@pytest.mark.parametrize("left", ["joint/checkpoint-4", "checkpoint-4", "adapter/config.yaml", "tags.json"])
def test_a_run_that_does_not_say_what_it_was_trained_with_is_left_alone(tmp_path: Path, left: str) -> None:
    (tmp_path / left).mkdir(parents=True)
    with pytest.raises(UserError, match="does not say what it was trained with.*--output"):
        claim_folder(tmp_path, BEFORE, "")
    assert not (tmp_path / SETTINGS).exists()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"settings": 1, "extended_at": []}'])
def test_settings_that_cannot_be_read_are_no_licence(tmp_path: Path, content: str) -> None:
    (tmp_path / SETTINGS).write_text(content)
    with pytest.raises(UserError, match=r"settings\.json cannot be read.*--output"):
        claim_folder(tmp_path, BEFORE, "")


def test_a_digest_hangs_on_every_value_and_their_order() -> None:
    known = {digest(values) for values in (["a", "b"], ["b", "a"], ["ab"], ["a"], [], ["a", "\udc80"])}
    assert len(known) == 6
    assert digest(["a"]) == digest(("a",))


@pytest.mark.parametrize(
    "command",
    [
        "finetune --output {}",
        "align --output {}",
        "heads --output {}",
        "compare_parts --output {}",
        "bootstrap --texts flickr8k --output {}",
        "prepare --output {}",
        "prepare --feedback votes --output {}",
        "convert csv --file rows.csv --output {}",
        "evaluate --suite development --output {}",
    ],
)
def test_no_command_begins_in_a_folder_where_another_is_at_work(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, *arguments = command.format(tmp_path / "run").split()
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    with (
        alone_in(tmp_path / "run"),
        pytest.raises(SystemExit, match="Another command is at work in"),
    ):
        importlib.import_module(f"training.{name}").main()
    assert not (tmp_path / "run").exists()
