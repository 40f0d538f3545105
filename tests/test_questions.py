"""The handlers of a conversation tab without a page: what a click means while a question is edited, after the server forgot
the conversation, twice at once, or with files of every kind."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from tests.conftest import EXAMPLES
from tests.test_serving import FakeAssistant
from vlm import Answer, Settings
from vlm.chat.conversation import NOTHING, Composed, Conversation, Exchange
from vlm.chat.records import from_record, to_record
from vlm.errors import UserError
from vlm.serving import keeping
from vlm.serving import questions as asking
from vlm.serving.browser_copy import copy_of
from vlm.serving.environment import ServerSettings
from vlm.serving.keeping import Keeping
from vlm.serving.questions import Questions
from vlm.serving.serving import Serving
from vlm.serving.tabs import conversation_tabs
from vlm.serving.voting import Voting

ANSWERED = Answer(text="A cat.", stage="done", ended=True, tokens=3, seconds={"total": 1.5})
CAT = str(EXAMPLES / "cat.jpg")


def clicked(**what: object) -> Any:
    return SimpleNamespace(**what)


@pytest.fixture
def questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Questions:
    monkeypatch.setattr(asking, "settings_from", lambda *_: Settings())
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    (tmp_path / "votes").mkdir()
    settings = ServerSettings(feedback=tmp_path / "votes")
    serving = Serving(FakeAssistant("one"), settings=settings)  # type: ignore[arg-type]
    return Questions(serving, conversation_tabs(EXAMPLES)[0])


def talk() -> Conversation:
    first = Exchange("What is this?", (CAT,), answer=ANSWERED)
    return Conversation([first, Exchange("And?", answer=replace(ANSWERED, ended=False))])


@pytest.mark.parametrize("edited", [0, 1])
def test_a_follow_up_goes_to_the_end_whatever_is_edited(questions: Questions, edited: int) -> None:
    conversation = talk()
    conversation.edit(edited, {"text": "a draft", "files": []})
    questions.ask_suggested(conversation, None, clicked(text="What color is it?"))
    assert [each.question for each in conversation.exchanges][-1] == "What color is it?"
    assert len(conversation.exchanges) == 3 and conversation.editing is None


def test_what_is_said_anew_is_asked_without_the_words_before(
    questions: Questions,
) -> None:
    spoken = Questions(questions.serving, conversation_tabs(EXAMPLES)[2])
    conversation = talk()
    assert Keeping(spoken).edit(conversation, None, None, clicked(at=1))[1]["value"] == NOTHING
    assert conversation.editing == 1
    assert Keeping(questions).edit(talk(), None, None, clicked(at=1))[1]["value"]["text"] == "And?"


def test_an_edited_question_that_is_refused_is_edited_alone_and_cancelled_without_a_loss(
    questions: Questions,
) -> None:
    conversation, handlers = talk(), Keeping(questions)
    draft: Composed = {"text": "a draft", "files": []}
    handlers.edit(conversation, draft, None, clicked(at=1))
    questions.ask(conversation, {"text": "And now?", "files": []}, None)
    assert questions.show(conversation)[1]["value"] == draft
    conversation.finish(conversation.exchanges[-1], "No.")
    refused = questions.settle_finished(conversation, draft)
    assert refused[1]["value"] == {"text": "And now?", "files": []}
    assert handlers.leave_as_it_was(conversation, None)[1]["value"] == draft


def test_a_conversation_that_was_cleared_does_not_come_back_with_a_quick_question(
    questions: Questions,
) -> None:
    conversation = talk()
    copy = copy_of(conversation)  # which the browser has until it is told that all is cleared
    Keeping(questions).start_over(conversation, clicked())
    questions.ask(conversation, {"text": "What is this?", "files": [CAT]}, copy)
    assert [each.question for each in conversation.exchanges] == ["What is this?"]
    forgotten = Conversation()
    questions.ask(forgotten, {"text": "And now?", "files": []}, copy)
    assert [each.question for each in forgotten.exchanges] == ["What is this?", "And?", "And now?"]


def test_a_question_whose_picture_is_gone_is_refused_and_not_answered_about_another(
    questions: Questions, tmp_path: Path
) -> None:
    gone = str(tmp_path / "gone.jpg")  # its time was up while it stood in the box, or under its answer
    with pytest.raises(UserError, match="no longer here. Please add it again"):
        questions.ask(Conversation(), {"text": "What is this?", "files": [gone]}, None)
    first, second = (Exchange("What is this?", (file,), answer=ANSWERED) for file in (CAT, gone))
    conversation = Conversation([first, second])
    with pytest.raises(UserError, match="no longer here"):
        questions.ask_again(conversation, None)
    cut = replace(second, answer=replace(ANSWERED, ended=False))
    with pytest.raises(UserError, match="no longer here"):
        questions.go_on(Conversation([first, cut]), None)
    assert len(conversation.exchanges) == 2 and not conversation.busy
    follow_up, with_own = Exchange("And this?"), Exchange("And this?", (CAT,))
    assert [turn.images for turn in Conversation([first, follow_up]).history()] == [(CAT,)]
    assert [turn.images for turn in Conversation([first, second, follow_up]).history()] == [(), ()]
    assert [turn.images for turn in Conversation([first, second, with_own]).history()] == [(CAT,), ()]


def test_a_spoken_question_is_asked_again_in_its_words_once_its_recording_is_deleted(
    questions: Questions, tmp_path: Path
) -> None:
    spoken = tmp_path / "spoken.weba"
    heard = Exchange("", (CAT,), str(spoken), answer=replace(ANSWERED, transcript="What is this?"))
    questions.ask_again(conversation := Conversation([heard]), None)
    assert (conversation.exchanges[-1].question, conversation.exchanges[-1].recording) == (
        "What is this?",
        None,
    )
    spoken.touch()  # while it is there, it is heard again
    questions.ask_again(conversation := Conversation([heard]), None)
    assert (conversation.exchanges[-1].question, conversation.exchanges[-1].recording) == ("", str(spoken))


def test_who_speaks_again_need_not_take_what_was_not_heard_out_of_the_box(
    questions: Questions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "received", str)
    recording = str(EXAMPLES / "what-color-is-it.wav")
    box: Composed = {"text": "Look.", "files": [CAT, str(tmp_path / "spoken.weba")]}
    questions.ask_spoken(conversation := Conversation(), box, None, clicked(path=recording))
    asked = conversation.exchanges[-1]
    assert (asked.question, asked.pictures, asked.recording) == ("Look.", (CAT,), recording)
    box["files"].append(str(EXAMPLES / "why-is-the-sky-blue.wav"))  # one that was chosen is not thrown away
    with pytest.raises(UserError, match="one recording at a time"):
        questions.ask_spoken(Conversation(), box, None, clicked(path=recording))


def test_more_pictures_than_a_conversation_holds_are_not_even_opened(
    questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "shown_file", None)
    with pytest.raises(UserError, match="At most 8 pictures can be asked about"):
        questions.ask(Conversation(), {"text": "What are these?", "files": [CAT] * 9}, None)


def test_a_picture_that_a_record_names_often_is_opened_once(
    questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(keeping, "open_image", opened.append)
    paths = (CAT, f"{EXAMPLES}/../examples/cat.jpg", CAT)
    talked = Conversation([Exchange("What?", paths, answer=ANSWERED)] * 20)
    Keeping(questions).open(shown := Conversation(), None, clicked(record=to_record(talked)))
    assert len(shown.exchanges) == 20 and opened == [CAT]


def test_a_conversation_whose_record_could_not_be_opened_again_is_full(questions: Questions) -> None:
    told = Settings(system="x" * 8_000)
    many, more = (
        Conversation([Exchange("And?", (CAT,), settings=told, answer=ANSWERED) for _ in range(count)])
        for count in (440, 460)
    )
    questions.ask(many, {"text": "And now?", "files": []}, None)
    assert len(from_record(to_record(many), str).exchanges) == 441
    with pytest.raises(UserError, match="This conversation is full"):
        questions.ask(more, {"text": "And now?", "files": []}, None)


def test_going_on_with_an_answer_ends_an_edit(questions: Questions) -> None:
    conversation = talk()
    conversation.edit(0, {"text": "a draft", "files": []})
    questions.go_on(conversation, None)
    assert conversation.editing is None


def test_what_the_server_forgot_is_there_again_for_every_button(questions: Questions) -> None:
    handlers, copy = Keeping(questions), copy_of(talk())
    for click in (
        lambda forgotten: handlers.turn(forgotten, copy, clicked(at=0, step=1)),
        lambda forgotten: handlers.leave_as_it_was(forgotten, copy),
    ):
        forgotten = Conversation()
        shown, *_ = click(forgotten)
        assert len(shown) == 4 and len(forgotten.exchanges) == 2


@pytest.mark.parametrize("name", ["a.mp3", "a.m4a", "a.flac", "a.WAV", "a.ogg", "a.webm", "a.png", "bad.png"])
def test_a_conversation_keeps_the_files_that_could_be_asked(
    questions: Questions, tmp_path: Path, name: str
) -> None:
    file = tmp_path / name
    if name == "a.png":
        Image.new("RGB", (8, 8)).save(file)
    else:
        file.write_bytes(b"a recording")
    talked = Conversation([Exchange("What?", (), str(file), answer=ANSWERED)])
    opened = Conversation()
    Keeping(questions).open(opened, None, clicked(record=json.loads(json.dumps(to_record(talked)))))
    assert (opened.exchanges[0].recording is None) == (name == "bad.png")


def test_a_double_click_on_a_thumb_is_one_vote(questions: Questions) -> None:
    voting, conversation, folder = Voting(questions.serving), talk(), questions.serving.feedback
    assert folder is not None
    with ThreadPoolExecutor(2) as pool:
        press = clicked(at=0, thumb="up", right_answer="")
        list(pool.map(lambda _: voting.vote(conversation, None, press), range(2)))
    assert len(list(folder.folder.glob("*.parquet"))) == 1
    voting.vote(conversation, None, clicked(at=0, thumb="", right_answer=""))
    assert not list(folder.folder.glob("*.parquet"))


def test_a_vote_lands_on_its_own_answer_or_is_taken_back_where_that_is_gone(
    questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    voting, folder = Voting(questions.serving), questions.serving.feedback
    assert folder is not None
    keep, conversation, press = folder.keep, talk(), clicked(at=1, thumb="up", right_answer="")
    conversation.begin(Exchange("Or?"), at=1)
    conversation.grow(conversation.exchanges[-1], ANSWERED)
    conversation.settle()
    monkeypatch.setattr(folder, "keep", lambda vote: (conversation.turn(1, -1), keep(vote))[1])
    voting.vote(conversation, None, press)
    assert [bool(way[1].voted) for way in conversation.ways] == [False, True]
    monkeypatch.setattr(folder, "keep", lambda vote: (conversation.take_over(talk()), keep(vote))[1])
    voting.vote(conversation, None, press)
    assert not any(each.voted for each in conversation.exchanges)
    assert len(list(folder.folder.glob("*.parquet"))) == 1


def test_a_growing_answer_is_copied_to_the_browser_and_a_continued_one_stays_as_it_was(
    questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("COPY_SECONDS", "REFRESH_SECONDS"):
        monkeypatch.setattr(asking, name, -1.0)
    said = [Answer(stage="looking"), Answer("A", "drafting"), Answer("A cat", "drafting")]
    monkeypatch.setattr(questions.serving.assistant, "stream", lambda *_: iter(said))
    conversation = talk()
    conversation.begin(Exchange("And now?", settings=Settings()))
    copies = [json.loads(copy) for _, copy in questions.answer(conversation) if isinstance(copy, str)]
    assert [each["record"]["exchanges"][-1]["answer"]["text"] for each in copies] == ["A", "A cat"]
    assert all(each["growing"] and each["busy"] for each in copies)
    conversation.settle()
    assert not json.loads(copy_of(conversation))["growing"]
    continued = Conversation([replace(talk().exchanges[1], settings=Settings())])
    continued.go_on()
    assert not [copy for _, copy in questions.answer(continued) if isinstance(copy, str)]


def test_of_what_was_spoken_the_words_come_back_to_the_box_or_the_recording_where_it_was_not_heard(
    questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = [Answer(stage="transcribing"), Answer(stage="transcribing", transcript="What is this?")]
    for heard, back in ((1, ("Look.", ["spoken.weba"])), (2, ("Look. What is this?", []))):
        monkeypatch.setattr(
            questions.serving, "stream", lambda *_, heard=heard: (each for each in said[:heard])
        )
        conversation = talk()
        conversation.begin(Exchange("Look.", recording="spoken.weba", settings=Settings()))
        list(questions.answer(conversation))
        assert questions.put_back(conversation.settle(), None) == {"text": back[0], "files": back[1]}
