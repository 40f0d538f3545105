"""Votes are kept whole or not at all, within a bound, and become rows that training takes."""

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from tests.chatting import ChattingAssistant
from tests.conftest import EXAMPLES
from tests.test_training import training_on
from tests.tiny import tiny_config, tiny_model
from training import finetune, prepare
from training.config import SourceConfig, StageConfig
from training.data import read_rows
from training.data.parquet_file import SCHEMA
from vlm.chat.answer import Answer
from vlm.chat.conversation import Conversation, Exchange
from vlm.chat.feedback import (
    COLUMNS,
    MEGABYTE,
    PICTURE_SIDE,
    Feedback,
    FeedbackFolder,
    encoded,
    export,
    feedback_on,
    read_feedback,
)
from vlm.chat.records import from_record, to_record
from vlm.commands import feedback
from vlm.errors import UserError
from vlm.serving.environment import ServerSettings, read_environment
from vlm.serving.messages import messages
from vlm.serving.questions import Questions
from vlm.serving.serving import Serving
from vlm.serving.tabs import conversation_tabs
from vlm.serving.voting import Voting

CAT = str(EXAMPLES / "cat.jpg")


def vote(**changes: object) -> Feedback:
    made = feedback_on("What is this?", "A dog.", "A cat.", "down", CAT, "embedded", "tiny")
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> FeedbackFolder:
    (tmp_path / "votes").mkdir()
    return FeedbackFolder(tmp_path / "votes", 10 * MEGABYTE)


def test_a_vote_is_one_parquet_file_with_the_picture_encoded_anew(folder: FeedbackFolder) -> None:
    given = vote()
    key = folder.keep(given)
    assert [file.name for file in folder.folder.iterdir()] == [f"{key}.parquet"]
    assert tuple(parquet.read_schema(folder.folder / f"{key}.parquet").names) == COLUMNS
    assert list(read_feedback(folder.folder)) == [given]
    assert given.picture and given.picture != Path(CAT).read_bytes()
    assert max(Image.open(io.BytesIO(given.picture)).size) <= PICTURE_SIDE


def test_neither_place_nor_comment_of_a_photograph_is_kept(tmp_path: Path) -> None:
    image, exif = Image.new("RGB", (2000, 40), "red"), Image.Exif()
    exif[0x010E] = "at home"
    image.save(tmp_path / "a.jpg", exif=exif, comment=b"at home")
    assert b"at home" in (tmp_path / "a.jpg").read_bytes()
    kept = feedback_on("Q?", "A.", "", "up", str(tmp_path / "a.jpg"), "", "").picture or b""
    assert b"at home" not in kept
    assert Image.open(io.BytesIO(kept)).size == (1024, 20)


def test_a_right_answer_belongs_to_a_thumb_down_and_has_a_bound() -> None:
    assert feedback_on("Q?", "A.", " No. ", "up", None, "", "").right_answer == ""
    assert feedback_on("Q?", "A.", " No. ", "down", None, "", "").right_answer == "No."
    with pytest.raises(UserError, match="has 8,001 characters and at most 8,000"):
        feedback_on("Q?", "A.", "x" * 8001, "down", None, "", "")
    with pytest.raises(UserError, match="up or down"):
        feedback_on("Q?", "A.", "", "sideways", None, "", "")


def test_a_kill_while_it_is_written_leaves_nothing_that_is_read(
    folder: FeedbackFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(file: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.keep(vote())
    monkeypatch.undo()
    assert not list(folder.folder.iterdir())
    (folder.folder / "half.parquet.partial").write_bytes(b"PAR1")  # of one that could not tidy up
    assert not list(read_feedback(folder.folder))
    assert folder.delete_all() == 0
    assert not list(folder.folder.iterdir())


def test_a_full_place_is_told_and_nothing_more_is_kept(folder: FeedbackFolder) -> None:
    folder.most_bytes = MEGABYTE
    (folder.folder / "large").write_bytes(bytes(MEGABYTE - 10_000))
    folder.keep(vote(picture=None))
    with pytest.raises(UserError, match=r"full \(1 MB\), so this was not kept"):
        folder.keep(vote())
    assert len(list(read_feedback(folder.folder))) == 1


def test_one_vote_is_taken_back_and_a_made_up_key_reaches_no_file(folder: FeedbackFolder) -> None:
    first, second = folder.keep(vote()), folder.keep(vote(question="Other?"))
    (folder.folder.parent / "mine.parquet").write_bytes(b"kept")
    folder.take_back("../mine")
    folder.take_back(first)
    folder.take_back(first)
    assert [each.question for each in read_feedback(folder.folder)] == ["Other?"]
    assert second and (folder.folder.parent / "mine.parquet").is_file()


def test_all_is_exported_into_one_file_and_deleted(
    folder: FeedbackFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(40):
        folder.keep(vote(question=f"Question {number}?"))
    place, out = str(folder.folder), tmp_path / "all.parquet"
    feedback(["export", str(out), "--folder", place])
    assert capsys.readouterr().out == f"Votes in {out}: 40.\n"
    assert set(parquet.read_table(out)["question"].to_pylist()) == {f"Question {n}?" for n in range(40)}
    assert [file.name for file in tmp_path.iterdir() if file.name.endswith(".partial")] == []
    others = {"notes.txt", "film.partial"}
    for name in others:
        (folder.folder / name).write_text("the owner's")
    feedback(["delete", "--folder", place])
    assert capsys.readouterr().out == "Votes that were deleted: 40.\n"
    assert {file.name for file in folder.folder.iterdir()} == others


def test_what_cannot_be_exported_is_told(folder: FeedbackFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no folder"):
        feedback(["delete", "--folder", str(tmp_path / "none")])
    with pytest.raises(UserError, match="would count as feedback there"):
        export(folder.folder, folder.folder / "all.parquet")
    with pytest.raises(UserError, match="cannot be written"):
        export(folder.folder, tmp_path / "none" / "all.parquet")
    key = folder.keep(vote())
    whole = (folder.folder / f"{key}.parquet").read_bytes()
    for content in (b"PAR1 no", whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :]):
        (folder.folder / f"{key}.parquet").write_bytes(content)
        with pytest.raises(UserError, match=f"{key}.parquet is not a whole parquet file"):
            export(folder.folder, tmp_path / "all.parquet")


# The settings.


def test_feedback_is_off_by_default_and_its_folder_is_made_at_the_start(tmp_path: Path) -> None:
    assert read_environment({}).feedback is None
    settings = read_environment({"FEEDBACK": str(tmp_path / "a" / "b"), "FEEDBACK_MB": "7"})
    assert (settings.feedback, settings.feedback_mb) == (tmp_path / "a" / "b", 7)
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_folder_that_cannot_be_written_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="FEEDBACK: nothing can be written to the folder"):
            read_environment({"FEEDBACK": str(path)})


# The handler.


def voting(tmp_path: Path, **settings: object) -> Voting:
    (tmp_path / "kept").mkdir(exist_ok=True)
    known = ServerSettings(feedback=tmp_path / "kept", **settings)  # type: ignore[arg-type]
    serving = Serving(ChattingAssistant(), settings=known)  # type: ignore[arg-type]
    return Voting(serving)


def pressed(at: int, thumb: str, right_answer: str = "") -> SimpleNamespace:
    return SimpleNamespace(at=at, thumb=thumb, right_answer=right_answer)


def talk(*pictures: str) -> Conversation:
    answer = Answer("A dog.", "done", "image" if pictures else "text", adapter="tiny", ended=True)
    return Conversation([Exchange("What is this?", pictures, answer=answer)])


def kept(tmp_path: Path) -> list[Feedback]:
    return list(read_feedback(tmp_path / "kept"))


def test_a_second_vote_takes_the_place_of_the_first_and_is_taken_back(tmp_path: Path) -> None:
    handler, conversation = voting(tmp_path), talk(CAT)
    handler.vote(conversation, None, pressed(0, "up"))  # type: ignore[arg-type]
    handler.vote(conversation, None, pressed(0, "down", "A cat."))  # type: ignore[arg-type]
    (only,) = kept(tmp_path)
    assert (only.thumb, only.right_answer, only.preset, only.adapter) == (
        "down",
        "A cat.",
        "embedded",
        "tiny",
    )
    assert only.picture == encoded(Image.open(CAT).convert("RGB"))
    reopened = from_record(to_record(conversation), lambda path: path)
    handler.vote(reopened, None, pressed(0, ""))  # type: ignore[arg-type]
    assert not kept(tmp_path) and reopened.exchanges[0].voted is None


def test_a_vote_names_the_preset_that_answered(tmp_path: Path) -> None:
    handler, conversation = voting(tmp_path), talk()
    answer = replace(conversation.exchanges[0].answer or Answer(), preset="phi-3.5")
    conversation.exchanges[0] = replace(conversation.exchanges[0], answer=answer)
    reopened = from_record(to_record(conversation), lambda path: path)
    handler.vote(reopened, None, pressed(0, "up"))  # type: ignore[arg-type]
    assert [each.preset for each in kept(tmp_path)] == ["phi-3.5"]


def test_pictures_are_kept_only_where_the_answer_is_about_one(tmp_path: Path) -> None:
    handler = voting(tmp_path)
    for conversation in (talk(), talk(CAT, str(EXAMPLES / "coffee.jpg")), talk("lost/cat.jpg")):
        handler.vote(conversation, None, pressed(0, "up"))  # type: ignore[arg-type]
    assert [each.picture for each in kept(tmp_path)] == [None] * 3
    follow_up = talk(CAT)
    follow_up.exchanges.append(replace(follow_up.exchanges[0], question="What color?", pictures=()))
    handler.vote(follow_up, None, pressed(1, "up"))  # type: ignore[arg-type]
    assert [bool(each.picture) for each in kept(tmp_path) if each.question == "What color?"] == [True]


@pytest.mark.parametrize("at", [-1, 1, 7])
def test_what_has_no_finished_answer_takes_no_vote(tmp_path: Path, at: int) -> None:
    handler, conversation = voting(tmp_path), talk(CAT)
    conversation.begin(Exchange("And?"))
    with pytest.raises(UserError, match="no finished answer"):
        handler.vote(conversation, None, pressed(at, "up"))  # type: ignore[arg-type]
    assert not kept(tmp_path)


def test_one_person_of_many_votes_as_often_as_they_may_ask(tmp_path: Path) -> None:
    handler, conversation = voting(tmp_path, questions_a_minute=1, auth="me:secret"), talk()
    handler.vote(conversation, None, pressed(0, "up"))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="1 votes a minute"):
        handler.vote(conversation, None, pressed(0, "down"))  # type: ignore[arg-type]
    assert [each.thumb for each in kept(tmp_path)] == ["up"]


def test_a_vote_stays_with_the_answer_in_every_way_that_shows_it_and_another_try_has_none(
    tmp_path: Path,
) -> None:
    handler, conversation = voting(tmp_path), talk(CAT)
    conversation.begin(Exchange("Second?", answer=Answer("Yes.")))
    conversation.settle()
    conversation.begin(Exchange("Other?", answer=Answer("No.")), at=1)
    conversation.settle()
    handler.vote(conversation, None, pressed(0, "up"))  # type: ignore[arg-type]
    assert conversation.ways[0][0] is conversation.ways[1][0]
    handler.vote(conversation, None, pressed(1, "up"))  # type: ignore[arg-type]
    questions = Questions(handler.serving, conversation_tabs(EXAMPLES)[0])
    questions.ask_again(conversation, None, *settings_of_the_page())
    assert conversation.exchanges[-1].voted is None and conversation.versions(1) == [0, 1, 2]


def settings_of_the_page() -> list[object]:
    from vlm import Settings
    from vlm.serving.settings_panel import personal_panel, settings_panel

    return [each.value for each in [*settings_panel(Settings()), *personal_panel("en")]]


def test_without_a_folder_there_is_no_thumb() -> None:
    assert "data-thumb" not in str(messages(talk(CAT)))
    shown = str(messages(talk(CAT), "Kept & said."))
    assert shown.count("data-thumb") == 2 and "Kept &amp; said." in shown
    serving = Serving(ChattingAssistant())  # type: ignore[arg-type]
    assert serving.feedback_notice == ""
    handler = Voting(serving)
    with pytest.raises(UserError, match="Nothing is kept"):
        handler.vote(talk(CAT), None, pressed(0, "up"))  # type: ignore[arg-type]


# Training.


def jpeg(seed: int) -> bytes:
    colours = hashlib.sha256(bytes([seed])).digest() * 2
    return encoded(Image.frombytes("RGB", (4, 4), colours[:48]).resize((400, 400)))


@pytest.fixture
def votes(folder: FeedbackFolder) -> Iterator[Path]:
    """Two about one picture of which one is corrected later, one without a right answer, one without a picture, one bad."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    up = vote(thumb="up", right_answer="", picture=jpeg(1), time=at)
    later = {"picture": jpeg(1), "time": at + timedelta(hours=1)}
    for each in (
        up,
        vote(question="what is  this?", **later),
        replace(up, question="What color?", answer="Grey."),
        replace(up, picture=jpeg(2)),
        vote(right_answer="", picture=jpeg(3)),
        vote(picture=None),
        vote(picture=b"bad"),
    ):
        folder.keep(each)
    yield folder.folder


def test_votes_become_rows_of_the_right_answers(votes: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    told = prepare.prepare_feedback(out, votes)
    assert told.startswith("7 votes: 3 are rows, on 2 pictures. Left out: ")
    for why in (
        "1 with a picture that cannot be read",
        "1 without a picture",
        "1 on a question that has a later one",
        "1 thumbs down without a right answer",
    ):
        assert why in told
    rows = read_rows(out, "train", "feedback")
    assert sorted((row.question, row.answer) for row in rows) == [
        ("What color?", "Grey."),
        ("What is this?", "A dog."),
        ("what is  this?", "A cat."),
    ]
    assert len({row.picture for row in rows}) == 2
    assert parquet.read_schema(out / "feedback.parquet").names == SCHEMA.names
    assert "| feedback | photo | train | 2 | 3 |" in (out / "card.md").read_text()


def test_the_rows_are_made_anew_each_evening(votes: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    prepare.prepare_feedback(out, votes)
    FeedbackFolder(votes, MEGABYTE).keep(vote(picture=jpeg(9)))
    prepare.prepare_feedback(out, votes)
    assert len(read_rows(out, "train", "feedback")) == 4


def test_what_looks_like_a_held_out_picture_is_left_out_and_told(votes: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    out.mkdir()
    image = {"bytes": jpeg(2), "path": "tuxpaint/held-out.jpg"}
    known = {"image": image, "kind": "photo", "split": "test", "source": "tuxpaint"}
    parquet.write_table(pa.Table.from_pylist([known], SCHEMA), out / "tuxpaint.parquet")
    told = prepare.prepare_feedback(out, votes)
    assert told.endswith("Of the pictures 1 were left out: looks like tuxpaint/held-out.jpg.")
    assert len(read_rows(out, "train", "feedback")) == 2


def test_feedback_of_which_nothing_can_be_learned_is_told(folder: FeedbackFolder, tmp_path: Path) -> None:
    folder.keep(vote(right_answer=""))
    with pytest.raises(UserError, match="nothing to train on. 1 votes: 0 are rows, on 0 pictures. Left out"):
        prepare.prepare_feedback(tmp_path / "data", folder.folder)
    with pytest.raises(UserError, match="There is no folder"):
        prepare.prepare_feedback(tmp_path / "data", tmp_path / "none")


@pytest.mark.slow
def test_a_training_run_learns_from_feedback(
    votes: Path, tmp_path: Path, undrawn: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "load_model_config", lambda name: tiny_config())
    monkeypatch.setattr(finetune, "check_fit", lambda *_: None)
    monkeypatch.setattr(finetune, "start_model", lambda *_: tiny_model())
    out = tmp_path / "data"
    prepare.prepare_feedback(out, votes)
    stage = StageConfig(max_steps=2, epochs=4)
    config = replace(
        training_on(out),
        sources=(SourceConfig("feedback"),),
        projector_stage=replace(stage, train="projector"),
        joint_stage=stage,
    )
    adapter = finetune.run(config)
    assert (adapter / "projector.safetensors").is_file() and (adapter / "data.md").is_file()
