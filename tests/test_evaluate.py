"""From an assistant and parquet to the result: questions are chosen, asked, scored and kept; a killed run goes on."""

import json
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fake_assistant import COLOURS, FakeAssistant, result_of, write_colours, write_data
from training import evaluate as command
from training.data import Row
from training.evaluate import evaluate
from training.scores import second_pictures as second
from training.scores.answering import answer_all, blank_picture, open_journal
from training.scores.journal import Journal, Reply
from training.scores.metrics import normalise
from training.scores.recording import record
from training.scores.results import read_result
from training.scores.selection import (
    NoQuestions,
    Options,
    blind_guesses,
    most_frequent_number,
    other_pictures,
    questions_of,
    rows_of,
    select,
)
from training.scores.suites import SUITES, Goal, Run, goal_rows, runs_of
from training.scores.tables import goals_table, result_text
from vlm.errors import UserError
from vlm.model.about import scores as about_scores


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three pictures, each asked for its name, for a yes and for a no."""
    rows_of.cache_clear()
    return write_colours(tmp_path / "data")


def test_every_question_is_asked_of_its_picture_and_of_a_blank_one(data: Path) -> None:
    assistant = FakeAssistant()
    result = result_of(assistant, data)
    assert result["questions"] == 9
    # "Is it pink?" and "What is this?" are asked once of the blank picture, and three questions of one picture each
    assert len(assistant.asked) == 9 + 5
    assert {question for colour, question in assistant.asked if colour == "white"} == {
        "What is this?", "Is it pink?", *(f"Is it {name}?" for name in COLOURS)
    }  # fmt: skip
    assert (result["accuracy"]["right"], result["blank_picture"]["right"]) == (6, 3)
    assert result["question_only"]["right"] >= 3  # "Is it pink?" was always answered with no
    assert result["shuffled_pictures"] is None
    assert result["metrics"]["balanced_accuracy"]["value"] == 0.5
    assert result["metrics"]["yes_rate"]["value"] == 1
    assert result["metrics"]["ended_by_itself"]["value"] == pytest.approx(2 / 3)
    assert result["baselines"]["blank_picture"]["yes_rate"]["value"] == 1


def test_the_questions_of_a_picture_stand_together(data: Path) -> None:
    assistant = FakeAssistant(parallel=1)
    result_of(assistant, data)
    colours = [colour for colour, _ in assistant.asked]
    assert colours == sorted(colours, key=colours.index)


def test_drafts_and_answers_come_out_of_one_run(data: Path) -> None:
    result = result_of(FakeAssistant(), data)
    item = result["answers"][0]
    assert (item["draft"], item["answer"], item["clean_up"]) == ("red", "Red.", "accepted")
    assert result["draft"]["right"] == result["accuracy"]["right"]
    assert result["clean_up"]["changed"] == 9
    assert (result["clean_up"]["improved"], result["clean_up"]["worsened"]) == (0, 0)
    assert result["clean_up"]["differences"]["accuracy"]["difference"] == 0
    drafts = result_of(FakeAssistant(), data, answers="draft")
    assert drafts["clean_up"]["verdicts"] == {"off": 9}
    assert drafts["answers"][0]["answer"] == "red"


def test_a_clean_up_that_spoils_a_draft_is_counted(data: Path) -> None:
    class Spoiler(FakeAssistant):
        def answer(self, question, images, settings):  # type: ignore[no-untyped-def]
            answer = super().answer(question, images, settings)
            answer.text = {"red": "Pink.", "lime": "Lime."}.get(answer.draft, answer.text)
            answer.draft = {"lime": "green"}.get(answer.draft, answer.draft)
            return answer

    write_data(data, {name: [("colour", "Which?", f"{name}.")] for name in COLOURS})
    result = result_of(Spoiler(), data, task="colour")
    assert (result["clean_up"]["improved"], result["clean_up"]["worsened"]) == (1, 1)
    assert "1 wrong drafts put right, 1 right ones spoilt" in result_text(result)


def test_a_third_baseline_looks_at_another_questions_picture(data: Path) -> None:
    result = result_of(FakeAssistant(), data, task="name", thorough=True)
    assert result["shuffled_pictures"]["of"] == 3
    assert result["shuffled_pictures"]["right"] == 0


def test_answers_in_keywords_are_compared_with_keywords(data: Path) -> None:
    result = result_of(FakeAssistant(), data, task="name", style="keywords")
    assert [item["references"][0] for item in result["answers"]] == list(COLOURS)
    assert result["draft"]["right"] == 3


def test_captions_have_no_verdict_but_cider_and_invented_objects(data: Path) -> None:
    captions = {name: [("describe", "Describe the picture.", f"A {name} dog runs.")] for name in COLOURS}
    write_data(data, captions, references=["A dog runs.", "Red."], objects=["dog"], source="captions")
    result = result_of(FakeAssistant(), data, source="captions")
    assert result["accuracy"] is None and result["draft"] is None
    assert result["metrics"]["cider"]["of"] == 3
    assert result["metrics"]["chair_s"]["value"] == 0
    cider = result["metrics"]["cider"]
    shown = f"{100 * cider['value']:8.1f}  ({100 * cider['low']:.1f} to"
    assert f"  cider                   {shown}" in result_text(result)


def test_several_sources_and_all_of_them_can_be_named(data: Path) -> None:
    write_data(data, {"red": [("name", "What is this?", "A red.")]}, source="other")
    write_data(data, {"blue": [("name", "What is this?", "A blue.")]}, source="third")
    counts = {source: result_of(FakeAssistant(), data, source=source)["questions"] for source in (
        "tiny", "other", "other, third", "all"
    )}  # fmt: skip
    assert counts == {"tiny": 9, "other": 1, "other, third": 2, "all": 11}


def test_a_task_that_the_split_lacks_is_an_error(data: Path) -> None:
    with pytest.raises(UserError, match="no rows of tiny, split test, task colour"):
        result_of(FakeAssistant(), data, task="colour")


def adapter(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text("model: {name: embedded}\n")
    (folder / "projector.safetensors").write_bytes(b"weights")
    return folder


def test_a_killed_evaluation_goes_on_where_it_stopped(data: Path, tmp_path: Path) -> None:
    file, folder = tmp_path / "result.jsonl", adapter(tmp_path / "adapter")
    killed = FakeAssistant(parallel=1, stops_after=6)
    options = Options("tiny", task="all")
    with pytest.raises(KeyboardInterrupt):
        evaluate(killed, data, options, open_journal(killed, folder, options, file))  # type: ignore[arg-type]
    kept = file.read_text().splitlines()
    assert 1 < len(kept) <= 1 + 6
    file.write_text("\n".join(kept) + '\n{"picture": "half a li')
    again = FakeAssistant()
    result = evaluate(again, data, options, open_journal(again, folder, options, file))  # type: ignore[arg-type]
    assert len(again.asked) == 14 - (len(kept) - 1)
    assert result == result_of(FakeAssistant(), data)
    done = FakeAssistant()
    evaluate(done, data, replace(options, limit=4), open_journal(done, folder, options, file))  # type: ignore[arg-type]
    assert not done.asked  # fewer of the same questions are answered already


def test_an_answer_with_a_line_separator_in_it_is_kept_as_one_reply(tmp_path: Path) -> None:
    file, header = tmp_path / "result.jsonl", {"adapter": "tiny"}
    reply = Reply("7", "digest", "What is this?", "A cat\u2028on a sofa.", "", "", 8, True, "", 0.5)
    Journal(file, header).add(reply)
    assert Journal(file, header).replies == {reply.key: reply}


def test_answers_of_another_adapter_or_other_settings_are_refused(data: Path, tmp_path: Path) -> None:
    file, folder = tmp_path / "result.jsonl", adapter(tmp_path / "adapter")
    assistant, options = FakeAssistant(), Options("tiny")
    open_journal(assistant, folder, options, file)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="another evaluation: settings differ"):
        open_journal(assistant, folder, replace(options, style="keywords"), file)  # type: ignore[arg-type]
    (folder / "projector.safetensors").write_bytes(b"trained longer")
    with pytest.raises(UserError, match="another evaluation: adapter differ"):
        open_journal(assistant, folder, options, file)  # type: ignore[arg-type]
    file.write_text("a,b,c\n")
    with pytest.raises(UserError, match="is not a file of answers"):
        open_journal(assistant, folder, options, file)  # type: ignore[arg-type]


def test_what_is_recorded_is_what_the_page_tells(data: Path, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "adapter")
    record(folder, result_of(FakeAssistant(), data), "the command")
    write_data(data, {"red": [("describe", "Describe the picture.", "A dog runs.")]}, source="captions")
    rows_of.cache_clear()
    record(folder, result_of(FakeAssistant(), data, source="captions", task="describe"), "another command")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert list(metrics) == ["tiny/test, task all", "captions/test, task describe"]
    assert metrics["tiny/test, task all"]["accuracy"]["right"] == 6
    assert "answers" not in metrics["tiny/test, task all"]
    assert metrics["captions/test, task describe"]["measure"] == "cider"
    text = about_scores(metrics)
    assert "| tiny/test, task all | 9 | 66.7% (" in text and "the command\nanother command" in text


def test_a_suite_is_one_table_with_goals_and_result_files(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = Options("tiny", task="name")
    runs = (
        Run("names", name, (Goal("right name", at_least=0.9), Goal("long", "words", at_most=0.5))),
        Run("missing", replace(name, source="nowhere"), (Goal("never asked"),)),
        Run("polar", replace(name, task="yes_no"), (Goal("share of yes", "yes_rate", 0.4, 0.6),)),
    )
    monkeypatch.setitem(SUITES, "development", runs)
    assistant, folder, out = FakeAssistant(), adapter(tmp_path / "adapter"), tmp_path / "out"
    monkeypatch.setattr(command, "load_assistant", lambda *_: assistant)
    monkeypatch.setattr(command, "find_adapter", Path)
    monkeypatch.setattr(
        sys, "argv", ["evaluate", "--adapter", str(folder), "--suite", "development", "--output", str(out),
                      "--folder", str(data), "--save"]
    )  # fmt: skip
    command.main()
    printed = capsys.readouterr()
    assert "left out" in printed.err and "never asked" not in printed.out
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.out.splitlines()]
    assert table[2] == [
        "right name",
        "3",
        "100.0%",
        "100.0%",
        "43.9% to 100.0%",  # Wilson's, where the bootstrap sees no chance
        "0.0%",
        "33.3%",
        "at least 90.0%",
        "yes",
    ]
    assert table[4][-2:] == ["at least 40.0%, at most 60.0%", "no"]
    assert [row[0] for row in table[5:]] == ["repetition, all answers", "ended by itself, all answers"]
    assert {file.name for file in out.iterdir()} == {
        "answers.jsonl", "goals.json", "goals.md", "names.json", "polar.json"
    }  # fmt: skip
    saved = json.loads((folder / "metrics.json").read_text())
    assert saved["tiny/test, task name"]["goals"][0]["met"] is True
    count = len(assistant.asked)
    command.main()
    assert len(assistant.asked) == count  # all answers were kept


def test_the_command_writes_a_result_that_compare_reads_and_tells_a_wrong_name_before_the_model_is_loaded(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = []
    monkeypatch.setattr(command, "load_assistant", lambda *names: loaded.append(names) or FakeAssistant())
    monkeypatch.setattr(command, "find_adapter", Path)
    folder, file = adapter(tmp_path / "adapter"), tmp_path / "result.json"
    given = ["evaluate", "--adapter", str(folder), "--folder", str(data), "--output", str(file)]
    monkeypatch.setattr(sys, "argv", [*given, "--data", "nowhere"])
    with pytest.raises(SystemExit, match="evaluate: .*no rows of nowhere, split test"):
        command.main()
    assert not loaded
    monkeypatch.setattr(sys, "argv", [*given, "--data", "tiny", "--task", "yes_no"])
    command.main()
    assert loaded == [(None, str(folder))]
    assert "balanced_accuracy" in capsys.readouterr().out
    assert len(read_result(file)["answers"]) == 6
    assert file.with_suffix(".jsonl").is_file()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["--data", "tiny", "--output", "{folder}"], "is a result file (.json)"),
        (["--data", "tiny", "--output", "{folder}/answers.jsonl"], "is a result file (.json)"),
        (["--data", "tiny", "--full"], "--full goes with --suite"),
        (["--suite", "development", "--output", "{folder}/there.json"], "is a file"),
        (["--suite", "development", "--output", "out", "--task", "name"], "--task: a suite has its own"),
        (
            ["--suite", "development", "--output", "out", "--split", "test", "--kind", "photo"],
            "--split, --kind: ",
        ),
        (["--suite", "development"], "--suite needs --output DIR"),
    ],
)
def test_options_of_the_other_way_to_ask_are_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asked: list[str],
    told: str,
) -> None:
    (tmp_path / "there.json").write_text("{}")
    monkeypatch.setattr(command, "run", None)
    monkeypatch.setattr(sys, "argv", ["evaluate", *(each.format(folder=tmp_path) for each in asked)])
    with pytest.raises(SystemExit):
        command.main()
    assert told in capsys.readouterr().err


def test_a_goal_of_which_nothing_was_measured_is_neither_met_nor_missed() -> None:
    run = Run("empty", Options("tiny"), (Goal("right", at_least=0.9), Goal("seldom", at_most=0.1)))
    assert [row["met"] for row in goal_rows(run, {"metrics": {}, "baselines": {}})] == [None, None]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            ["--data", "test"],
            "test, split test. It has these sources and splits: tiny .test, train.\\.",
        ),
        (
            ["--data", "tiny", "--split", "train", "--task", "count"],
            "have the tasks name, no, yes and the kinds ",
        ),
        (
            ["--suite", "development", "--output", "out"],
            "has nothing of them. It has these sources.*Name one with",
        ),
    ],
)
def test_data_without_what_is_asked_for_are_told_before_a_model_is_loaded(
    data: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str], told: str
) -> None:
    monkeypatch.setattr(command, "load_assistant", None)
    monkeypatch.setattr(sys, "argv", ["evaluate", *asked, "--folder", str(data)])
    with pytest.raises(SystemExit, match=told):
        command.main()


def test_every_goal_of_the_development_suite_has_questions_of_its_own() -> None:
    runs = runs_of("development")
    assert len({run.name for run in runs}) == len(runs)
    by_name = {run.name: run.options for run in runs}
    assert by_name["easy-vqa"].limit == 1000
    assert {run.name: run.options.limit for run in runs_of("development", full=True)}["easy-vqa"] is None
    assert all(run.options.limit and run.options.limit <= 50 for run in runs_of("development", limit=50))
    assert all(run.options.style == "keywords" for run in runs_of("development", style="keywords"))


def test_a_goal_may_stand_above_the_best_constant_answer() -> None:
    goal = Goal("how many", "count_accuracy", 0.1, above="most_frequent_number")
    metrics = {
        "count_accuracy": {"value": 0.45, "low": 0.4, "high": 0.5, "of": 9},
        "most_frequent_number": {"value": 0.4},
    }
    (row,) = goal_rows(Run("count", Options("tiny"), (goal,)), {"metrics": metrics, "baselines": {}})
    assert row["at_least"] == pytest.approx(0.5) and row["met"] is False
    assert "at least 50.0%" in goals_table([row])


def row(task: str, question: str, answer: str, noun: str = "", picture: str = "p", turn: int = 0) -> Row:
    return Row(picture, question, answer, "s", "photo", noun, (), turn=turn, task=task)


def test_a_task_selects_its_questions() -> None:
    rows = [row("name", "What is this?", "A cat.", "cat"), row("yes", "a?", "Yes."), row("no", "b?", "No.")]
    assert select(rows) == rows[:1]
    assert select(rows, "yes_no") == rows[1:]
    assert select(rows, "all") == rows
    assert len(select(rows, "yes_no", 1)) == 1


def test_what_a_conversation_says_again_is_asked_once_and_its_chat_is_not() -> None:
    rows = [row("vqa", "a?", "Yes."), row("count", "b?", "Two.")]
    again = [replace(each, conversation="c", turn=turn) for turn, each in enumerate(rows)]
    chat = row("chat", "And what does it eat?", "Grass.", turn=2)
    assert select([*rows, *again, chat], "all") == rows
    assert select(again, "all") == again
    converted = [replace(each, task="") for each in again]
    assert select(converted, "all") == converted[:1]
    later = [replace(each, turn=each.turn + 3) for each in converted]  # the first ones were left out
    assert select(later, "all") == later[:1]


def test_a_task_may_be_narrowed_to_a_kind_of_question() -> None:
    rows = [row("yes", "Is there a dog?", "Yes."), row("no", "Is this outdoors?", "No.")]
    rows += [row("count", "How many dogs?", "Four."), row("count", "How many cats?", "Five.")]
    assert select(rows, "presence") == rows[:1]
    assert select(rows, "count_to_4") == rows[2:3]


def test_only_pictures_of_one_kind_may_be_asked_about(data: Path) -> None:
    write_data(data, {"red": [("name", "What is this?", "A red.")]}, kind="drawing")
    assert result_of(FakeAssistant(), data, kind="drawing")["questions"] == 1
    assert result_of(FakeAssistant(), data, kind="photo")["questions"] == 9
    with pytest.raises(UserError, match="task all, kind render"):
        result_of(FakeAssistant(), data, kind="render")


def test_a_description_knows_the_objects_of_all_rows_of_its_picture(data: Path) -> None:
    asked = {"red": [("describe", "Describe the picture.", "A dog runs.")]}
    write_data(data, asked, source="boxes", references=["A dog runs."])
    write_data(data, {"red": [("yes", "Is it red?", "Yes.")]}, source="boxes", objects=["car", "dog"])
    rows = questions_of(data, Options("boxes", task="describe"))
    assert [each.objects for each in rows] == [("car", "dog")]


def test_a_limit_draws_the_same_questions_every_time_and_keeps_their_order() -> None:
    rows = [row("vqa", f"{number:03}?", "Yes.") for number in range(100)]
    drawn = select(rows, "vqa", 10)
    assert drawn == select(rows, "vqa", 10) == sorted(drawn, key=lambda each: each.question)
    assert drawn != rows[:10]


def test_each_picture_is_named_and_described_once_in_the_plainest_words() -> None:
    rows = [row("name", "What is it?", "A cat.", "cat"), row("name", "What is this?", "A cat.", "cat")]
    rows += [
        row("describe", "Caption it.", "A cat sits.", picture="q"),
        row("name", "What's this?", "A dog.", "dog", "q"),
    ]
    assert [(each.picture, each.question) for each in select(rows)] == [
        ("p", "What is this?"),
        ("q", "What's this?"),
    ]
    assert [each.question for each in select(rows, "describe")] == ["Caption it."]
    questions = [row("", "a?", "b"), row("", "c?", "d")]
    assert select(questions) == questions


def test_the_question_only_baseline_is_the_most_frequent_training_answer() -> None:
    rows = [row("yes", "a?", "Yes."), row("no", "b?", "No.")]
    training = [row("yes", "c?", "Yes, it is."), row("name", "d?", "A dog."), row("name", "d?", "A dog.")]
    assert [normalise(each) for each in blind_guesses(rows, training)] == ["yes", "yes"]
    assert blind_guesses([row("name", "d?", "A cat.")], training) == ["A dog."]


def test_the_most_frequent_number_is_that_of_the_questions_themselves() -> None:
    rows = [
        row("count", f"{index}?", answer)
        for index, answer in enumerate(["Two.", "2 dogs.", "Three.", "Four."])
    ]
    assert most_frequent_number(rows) == "2"
    assert most_frequent_number([]) == ""


def test_shuffled_pictures_are_never_the_own() -> None:
    names = [f"p{number}" for number in range(50)]
    other = other_pictures([*names, *names])
    assert set(other) == set(other.values()) == set(names)
    assert all(own != given for own, given in other.items())
    assert other == other_pictures(names[::-1])
    assert other_pictures(["p"]) == {}


@pytest.mark.parametrize(("looks_back", "same", "first_again"), [(False, 3, 0), (True, 0, 3)])
def test_second_pictures_are_compared_with_what_is_said_of_them_alone(
    tmp_path: Path, looks_back: bool, same: int, first_again: int
) -> None:
    asked = {name: [("name", "What is this?", f"A {name}.")] for name in COLOURS}
    for name, rows in asked.items():
        write_data(tmp_path, {name: rows}, noun=name)
    assistant = FakeAssistant()
    assistant.looks_back = looks_back
    journal = Journal(tmp_path / "answers.jsonl", {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(second, "ASKED_ABOUT", Options("tiny", "test", "name"))
        found = second.second_pictures(assistant, tmp_path, assistant.settings, journal)  # type: ignore[arg-type]
        count = len(assistant.asked)
        again = second.second_pictures(assistant, tmp_path, assistant.settings, journal)  # type: ignore[arg-type]
    assert (found["same"], found["first_again"]) == (same, first_again)
    assert again == found and len(assistant.asked) == count == 6  # what was answered is not asked again
    (goal,) = found["goals"]
    assert goal["n"] == 3 and goal["answer"] == same / 3 and goal["met"] == (not looks_back)
    assert len({each["first"] for each in found["answers"]}) == 3


def test_too_few_held_out_pictures_have_no_pairs(tmp_path: Path) -> None:
    write_data(tmp_path, {"red": [("name", "What is this?", "A red.")]}, noun="red")
    assistant = FakeAssistant()
    with pytest.raises(NoQuestions):
        second.second_pictures(assistant, tmp_path, assistant.settings, Journal(None, {}))  # type: ignore[arg-type]


def test_a_reply_that_comes_with_a_failure_is_not_lost(tmp_path: Path) -> None:
    failed = threading.Event()

    class Failing(FakeAssistant):
        def answer(self, question: str, *given: Any, **named: Any) -> Any:
            if question == "Who?":
                failed.set()
                raise KeyboardInterrupt
            failed.wait()
            time.sleep(0.1)  # the failure is seen before this ends
            return super().answer(question, *given, **named)

    journal = Journal(tmp_path / "answers.jsonl", {})
    assistant, shown = Failing(parallel=2), blank_picture()
    asked = [(shown.name, question) for question in ("What?", "Who?")]
    with pytest.raises(KeyboardInterrupt):
        answer_all(assistant, asked, {shown.name: shown}, assistant.settings, journal)  # type: ignore[arg-type]
    assert {question for _, question in Journal(journal.file, {}).replies} == {"What?"}


def test_an_answer_whose_clean_up_failed_is_asked_for_again(tmp_path: Path) -> None:
    class Failing(FakeAssistant):
        def answer(self, *given: Any, **named: Any) -> Any:
            answer = super().answer(*given, **named)
            answer.clean_up = "failed: The server is away."
            return answer

    journal, shown = Journal(tmp_path / "answers.jsonl", {}), blank_picture()
    for assistant in (Failing(), FakeAssistant()):
        with suppress(UserError):
            answer_all(assistant, [(shown.name, "What?")], {shown.name: shown}, assistant.settings, journal)  # type: ignore[arg-type]
    (reply,) = journal.replies.values()
    assert reply.clean_up == "accepted"
