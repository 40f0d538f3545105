"""Conversations without a page: their branches, their copy in the browser, how sure an answer is, where it looked."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from markdown_it import MarkdownIt

from tests.tiny import picture, tiny_eyes
from vlm import Answer, Settings, UserError
from vlm.chat.conversation import NOTHING, Conversation, Exchange, Voted
from vlm.chat.occlusion import _named, where_it_looked
from vlm.chat.records import from_record, to_record
from vlm.chat.trace import certainty_note
from vlm.serving.browser_copy import copy_of, recover
from vlm.serving.markdown import to_html, to_words
from vlm.serving.messages import messages
from vlm.serving.received import received

ANSWERED = Answer(text="A cat.", stage="done", ended=True, tokens=3, seconds={"total": 1.5})


def asked(*questions: str) -> Conversation:
    return Conversation([Exchange(each, answer=ANSWERED) for each in questions])


def said(conversation: Conversation) -> list[str]:
    return [each.question for each in conversation.exchanges]


def branched() -> Conversation:
    """a, b, c; then from the second question on x, y."""
    conversation = asked("a", "b", "c")
    for question, at in (("x", 1), ("y", None)):
        conversation.begin(Exchange(question), at)
        conversation.grow(conversation.exchanges[-1], ANSWERED)
        conversation.settle()
    return conversation


def test_an_earlier_question_in_other_words_begins_a_branch_and_one_turns_back() -> None:
    conversation = branched()
    assert said(conversation) == ["a", "x", "y"]
    assert [len(conversation.versions(number)) for number in range(3)] == [1, 2, 1]
    assert conversation.place(1) == 1
    conversation.turn(1, -1)
    assert said(conversation) == ["a", "b", "c"]
    conversation.turn(1, -1)  # there is no earlier one
    assert said(conversation) == ["a", "b", "c"]
    conversation.turn(1, 1)
    assert said(conversation) == ["a", "x", "y"]
    conversation.begin(Exchange("z"), at=2)
    assert [conversation.place(number) for number in range(3)] == [0, 1, 1]


def test_a_branch_without_an_answer_leaves_the_one_before_also_where_it_comes_from_its_record() -> None:
    conversation = branched()
    conversation.begin(Exchange("z"), at=1)
    again = from_record(to_record(conversation), lambda path: None)
    again.settle()
    assert (said(again), len(again.ways)) == (["a", "b", "c"], 2)


def test_a_branch_that_gets_no_answer_leaves_the_one_before() -> None:
    conversation = branched()
    conversation.begin(Exchange("z"), at=0)
    lost = conversation.settle()
    assert lost and lost.question == "z"
    assert said(conversation) == ["a", "x", "y"] and len(conversation.ways) == 2


def test_an_edited_question_that_gets_no_answer_is_edited_still_and_one_asked_again_stays_where_it_is() -> (
    None
):
    conversation = branched()
    conversation.edit(1, NOTHING)
    conversation.begin(Exchange("z"), at=1)
    assert conversation.editing is None
    lost = conversation.settle()
    assert lost and (lost.question, conversation.editing, said(conversation)) == ("z", 1, ["a", "x", "y"])
    conversation.editing = None
    conversation.begin(Exchange("y"), at=2)
    assert conversation.settle() is None  # or it would come into the box, and stand above it too
    assert (said(conversation), conversation.editing) == (["a", "x", "y"], None)


def test_an_answer_that_was_stopped_can_go_on() -> None:
    stopped = Exchange("a", answer=replace(ANSWERED, stage="drafting", ended=False))
    assert stopped.is_cut
    shown = str(messages(Conversation([stopped])))
    assert "The answer was stopped." in shown and "length limit" not in shown and "go_on" in shown


def test_only_an_answer_that_was_cut_off_goes_on_and_it_keeps_its_words() -> None:
    conversation = asked("a")
    with pytest.raises(UserError, match="cut off"):
        conversation.go_on()
    conversation.exchanges[-1] = replace(conversation.exchanges[-1], answer=replace(ANSWERED, ended=False))
    conversation.go_on()
    assert conversation.busy and conversation.exchanges[-1].begun
    assert conversation.settle() is None  # it was stopped before a word came
    assert conversation.exchanges[-1].text == "A cat." and not conversation.exchanges[-1].begun
    cut = conversation.exchanges[-1]
    conversation.go_on()
    looking = conversation.grow(conversation.exchanges[-1], Answer("A cat.", "looking"))
    assert looking
    conversation.finish(looking, "It cannot go on.")  # it was refused before a word came
    conversation.settle()
    assert conversation.exchanges[-1] == cut and cut.is_cut
    conversation.go_on()
    ended = conversation.grow(
        conversation.exchanges[-1], ANSWERED
    )  # with the words that it had: it was whole
    assert ended
    conversation.finish(ended)
    conversation.settle()
    assert not conversation.exchanges[-1].is_cut


def test_a_record_brings_back_every_branch_and_the_files_that_arrived() -> None:
    conversation = branched()
    first = replace(
        conversation.exchanges[0],
        pictures=("old/a.png", "old/b.png"),
        recording="old/s.webm",
        settings=Settings(seed=3),
    )
    for way in conversation.ways:
        way[0] = first
    record = json.loads(json.dumps(to_record(conversation)))
    opened = from_record(record, lambda path: None if path.endswith("b.png") else path.replace("old", "new"))
    assert [[each.question for each in way] for way in opened.ways] == [["a", "b", "c"], ["a", "x", "y"]]
    assert opened.shown == 1 and opened.key == conversation.key
    assert opened.exchanges[0].pictures == ("new/a.png", "lost/b.png")
    assert opened.exchanges[0].recording == "new/s.webm"
    assert (opened.exchanges[0].settings, opened.exchanges[0].answer) == (Settings(seed=3), ANSWERED)
    assert opened.ways[0][0] is opened.ways[1][0]
    assert len(opened.versions(1)) == 2


def test_a_conversation_says_that_it_is_full_and_what_it_holds_can_be_opened_again() -> None:
    many = asked(*map(str, range(99)))
    with pytest.raises(UserError, match="This conversation is full. Please start a new one"):
        while True:
            many.begin(Exchange("again"), at=98)
            many.grow(many.exchanges[-1], ANSWERED)
            many.settle()
    long = asked(*["And?"] * 1_000)
    with pytest.raises(UserError, match="full"):
        long.begin(Exchange("And?"))
    for full, count in ((many, 101), (long, 1)):
        again = from_record(json.loads(json.dumps(to_record(full))), str)
        assert (said(again), len(again.ways)) == (said(full), count)


def test_a_vote_leaves_the_answer_that_grows_meanwhile_where_it_is() -> None:
    conversation = asked("a")
    conversation.begin(Exchange("b"))
    way = conversation.exchanges
    conversation.vote(way[0], Voted("up", "key"))
    assert conversation.exchanges is way and way[0].voted == Voted("up", "key")


SPOILED: dict[str, Callable[[Any], Any]] = {
    "no list": lambda record: [],
    "no exchanges": lambda record: record.pop("exchanges"),
    "no way": lambda record: record.update(ways=[]),
    "a way to nowhere": lambda record: record.update(ways=[[0, 99]]),
    "a way backwards": lambda record: record.update(ways=[[-1]]),
    "nothing shown": lambda record: record.update(shown=7),
    "a number for a question": lambda record: record["exchanges"][0].update(question=5),
    "a path of numbers": lambda record: record["exchanges"][0].update(pictures=[1]),
    "a stage that is none": lambda record: record["exchanges"][0]["answer"].update(stage="<b>"),
    "seconds in words": lambda record: record["exchanges"][0]["answer"].update(seconds={"total": "long"}),
    "far too long": lambda record: record["exchanges"][0].update(question="x" * 200_000),
    "settings out of bounds": lambda record: record["exchanges"][0].update(settings={"temperature": 9}),
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_a_record_that_was_changed_is_refused(spoiled: str) -> None:
    record = to_record(branched())
    changed = SPOILED[spoiled](record)
    with pytest.raises(UserError, match="cannot be read"):
        from_record(changed if spoiled == "no list" else record, str)


def test_an_empty_conversation_is_filled_from_the_pages_copy_and_a_full_one_is_not() -> None:
    forgotten, talking = Conversation(), asked("other")
    for conversation in (forgotten, talking):
        recover(conversation, copy_of(branched()))
    assert (said(forgotten), said(talking)) == (["a", "x", "y"], ["other"])
    recover(untouched := Conversation(), copy_of(Conversation()))
    unanswered = branched()
    unanswered.begin(Exchange("z"))
    recover(restarted := Conversation(), copy_of(unanswered))
    assert said(restarted) == ["a", "x", "y"]  # a restart in mid-answer leaves no question without words
    assert not restarted.busy
    assert not untouched.exchanges


def test_a_copy_of_far_more_values_than_a_request_may_have_is_refused_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    talking = branched()
    recover(talking, "no copy is looked at while there is a conversation")
    monkeypatch.setattr(json, "loads", None)
    with pytest.raises(UserError, match="cannot be read"):
        recover(Conversation(), '{"record": [' + "[]," * 200_000 + "0]}")


def test_only_files_that_were_uploaded_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").mkdir()
    for name in ("cache/a.png", "secret.png"):
        (tmp_path / name).touch()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    assert received(str(tmp_path / "cache" / "a.png")) == str((tmp_path / "cache" / "a.png").resolve())
    (tmp_path / "cache" / "link.png").symlink_to(tmp_path / "secret.png")
    for other in (
        "secret.png",
        "cache/../secret.png",
        "cache/link.png",
        "cache/none.png",
        "cache",
        "x" * 5000,
        "a\0b",
    ):
        assert received(str(tmp_path / other)) is None
    assert received("/etc/passwd") is None


def test_openings_of_formulas_without_an_end_take_no_minutes() -> None:
    begun = time.monotonic()
    to_html("\\(" * 50_000)
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("**bold**", "<strong>bold</strong>"),
        ("<b>x</b><script>alert(1)</script>", "&lt;b&gt;x&lt;/b&gt;&lt;script&gt;"),
        ("![spy](https://example.com/a.png)", '<a href="https://example.com/a.png"'),
        ("[a](https://example.com)", 'target="_blank" rel="noopener noreferrer nofollow"'),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "<td>1</td>"),
        ('```py"><script>\nx < 1\n```', "<pre><code>x &lt; 1\n</code></pre>"),
        ("```\nunfinished", "<pre><code>unfinished"),
    ],
)
def test_markdown_is_rendered_and_html_is_text(markdown: str, html: str) -> None:
    made = to_html(markdown)
    assert html in made
    assert "<script" not in made and "<img" not in made
    assert "href" not in to_html("[a](javascript:alert(1)) [b](data:text/html,x)")


def test_an_answer_that_is_drawn_again_is_not_rendered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    conversation = Conversation([Exchange("a", answer=replace(ANSWERED, text="Drawn **twice**."))])
    shown, copied = messages(conversation), copy_of(conversation)
    monkeypatch.setattr(MarkdownIt, "parse", lambda *_: pytest.fail("rendered again"))
    assert (messages(conversation), copy_of(conversation)) == (shown, copied)


@pytest.mark.parametrize(
    ("markdown", "formula"),
    [
        (r"So \(a_1 * b_2 < \boxed{391}\) it is.", r"\(a_1 * b_2 &lt; \boxed{391}\)"),
        (r"\[ 17 \times 23 = 391 \]", r"\[ 17 \times 23 = 391 \]"),
        ("1. So:\n   \\[\n   391\n   - 1\n   \\]\n2. Then", "\\[\n   391\n   - 1\n   \\]"),
        (r"Thus $$x_1 * y_2 * z$$ holds.", "$$x_1 * y_2 * z$$"),
    ],
)
def test_a_formula_stays_the_latex_that_it_is(markdown: str, formula: str) -> None:
    assert f'<code class="formula">{formula}</code>' in to_html(markdown)


def test_amounts_in_dollars_are_text() -> None:
    assert to_html("$5 and $6, or *$7*") == "<p>$5 and $6, or <em>$7</em></p>\n"
    assert "formula" not in to_html("Use `\\(x\\)` here.")


def test_an_answer_is_said_without_the_signs_of_markdown() -> None:
    written = (
        "# Steps\n\n1. **Print** it:\n\n```python\nprint(2 * 3)\n```\n\n2. See [here](https://x.org).\n\n- `a_b`\n\n"
        "| n | name |\n|--|--|\n| 1 | cat |"
    )
    said = "Steps\n1. Print it:\nprint(2 * 3)\n2. See here.\na_b\nn, name\n1, cat"
    assert to_words(written) == said
    answered = Conversation([Exchange("How?", answer=replace(ANSWERED, text=written)), Exchange("And?")])
    assert json.loads(copy_of(answered))["words"] == [said, ""]


@pytest.mark.parametrize(
    ("text", "seen", "doubts"),
    [
        ("A sledgehammer.", "sledgehammer 9%, mallet 4%", True),
        ("A cat.", "tabby cat 62%, sofa 11%", False),
        ("A bird.", "bird 12%; cat 80%", False),
        ("Yes.", "cat 9%", False),
        ("3 dogs.", "dog 9%", False),
        ("Three.", "dog 9%", False),
        ("Red and white.", "dog 9%", False),
        ("A red rose.", "dog 9%", True),
        ("An orange.", "dog 9%", True),
        ("A dog is running through the grass.", "dog 9%", False),
        ("A cat.", "", False),
    ],
)
def test_an_answer_that_names_what_is_hardly_seen_says_that_it_is_not_sure(
    text: str, seen: str, doubts: bool
) -> None:
    answer = Answer(text=text, stage="done", seen=seen)
    assert certainty_note(answer).startswith("I am not sure" if doubts else "") is True
    assert bool(certainty_note(answer)) is doubts
    assert not certainty_note(replace(answer, stage="drafting"))


def test_the_look_is_for_a_name_that_was_said_unless_it_was_only_denied() -> None:
    names, chances = ["cat", "dog"], torch.tensor([0.6, 0.3])
    assert _named(names, chances, "A dog.") == 1
    assert _named(names, chances, "Yes, there is a cat.") == _named(names, chances, "Brown.") == 0
    assert _named(names, torch.tensor([0.6, 0.001]), "No, there is no dog.") == 0


def test_the_look_leaves_in_colour_what_the_name_depends_on() -> None:
    """Of a blue picture with a red corner, seen by eyes whose first class is redness, the corner stays red."""
    eyes = tiny_eyes(tags=2)
    with torch.no_grad():
        eyes.vision.convolution.weight.zero_()
        eyes.vision.convolution.weight[0, 0], eyes.vision.convolution.weight[0, 1] = 1 / 16, -1 / 16
        eyes.vision.classifier.weight.zero_()
        eyes.vision.classifier.weight[0, 0] = 1.0
    image = picture("blue").resize((224, 224))
    image.paste((255, 0, 0), (0, 0, 64, 64))
    *steps, last = where_it_looked(eyes, image, "An ant.")
    assert [step.done for step in steps] == sorted(step.done for step in steps) and last.name == "ant"
    assert last.picture is not None
    pixels = np.asarray(last.picture, np.int32)
    assert (pixels[..., 0] - pixels[..., 2])[:32, :32].mean() > 100
    assert np.abs(pixels[..., 2] - pixels[..., 0])[128:, 128:].mean() < 20
    with pytest.raises(UserError, match="no names"):
        next(where_it_looked(tiny_eyes(), image, ""))
