"""The endpoints with the real assistant, and the plain data behind the page: conversations, messages, downloads."""

import re
from dataclasses import replace
from html import escape
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from tests.tiny import tiny_config
from vlm import Answer, Settings, UserError
from vlm.chat.conversation import NOTHING, Conversation, Exchange, composed_exchange
from vlm.chat.one_by_one import joined
from vlm.chat.trace import trace_of
from vlm.serving.messages import messages
from vlm.serving.page import views_of
from vlm.serving.plain_errors import UNEXPECTED, PlainBlocks, plain_sentence, plainly
from vlm.serving.settings_panel import settings_panel

EXAMPLES = Path(__file__).parent.parent / "assets" / "examples"
ANSWERED = Answer(
    text="A cat.",
    stage="done",
    draft="cat",
    model="m",
    adapter="a",
    clean_up="accepted",
    tokens=3,
    left_out=0,
    ended=True,
)
UNSEEING = {"description": "tiny · none · torch · CPU", "config": tiny_config(), "adapter_folder": None}


@pytest.fixture(scope="module")
def client(page_address: str) -> Client:
    return Client(page_address, verbose=False)


def test_the_api_has_five_named_endpoints_with_descriptions(client: Client) -> None:
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert set(endpoints) == {"/image", "/text", "/voice", "/search", "/classify"}
    assert all(endpoint["description"] for endpoint in endpoints.values())


def test_image_answers_about_a_picture(client: Client) -> None:
    answer, trace = client.predict(
        "what is this?",
        [handle_file(EXAMPLES / "stop-sign.jpg")],
        None,
        max_new_tokens=16,
        api_name="/image",
    )
    assert answer == trace["text"]
    assert (trace["route"], trace["adapter"], trace["stage"]) == ("image", "embedded", "done")
    assert trace["draft"]


def test_the_sampling_settings_are_optional_arguments_at_the_end(client: Client) -> None:
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    names = ["top_p", "min_p", "repetition_penalty", "seed"]
    for name in ("/image", "/text", "/voice"):
        last = endpoints[name]["parameters"][-4:]
        assert [each["parameter_name"] for each in last] == names
        assert [each["parameter_default"] for each in last] == [getattr(Settings(), name) for name in names]


def test_a_seed_repeats_the_draw(client: Client) -> None:
    def ask(seed: int) -> str:
        chosen = {"max_new_tokens": 8, "temperature": 1.5, "top_p": 1.0, "seed": seed}
        text, trace = client.predict("Tell me a story.", **chosen, api_name="/text")
        assert trace["seed"] == seed
        return text

    ask(3)  # a prompt that is still in the cache is rounded differently, and a high temperature shows it
    assert ask(3) == ask(3) != ask(4)


def test_text_answers_from_the_base_model(client: Client) -> None:
    answer, trace = client.predict("What is the capital of France?", max_new_tokens=24, api_name="/text")
    assert "Paris" in answer
    assert trace["adapter"] is None


def test_voice_tells_what_was_heard(client: Client) -> None:
    recording = handle_file(EXAMPLES / "what-is-in-the-picture.wav")
    _, trace = client.predict(recording, max_new_tokens=16, api_name="/voice")
    assert "picture" in trace["transcript"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"question": "What?", "images": [], "audio": None, "api_name": "/image"}, "at least one picture"),
        ({"question": "  ", "api_name": "/text"}, "type or speak"),
        ({"question": "x" * 20_000, "api_name": "/text"}, "shorten"),
        ({"audio": None, "api_name": "/voice"}, "recording"),
        ({"question": "Hello.", "max_new_tokens": 99_999, "api_name": "/text"}, "between 1 and 1024"),
        ({"question": "Hello.", "seed": -1, "api_name": "/text"}, "seed must be between 0"),
    ],
)
def test_bad_input_is_one_plain_sentence(client: Client, arguments: dict, message: str) -> None:
    with pytest.raises(AppError, match=message) as refused:
        client.predict(**arguments)
    assert "Traceback" not in str(refused.value)


def test_a_file_that_is_no_picture_is_refused_and_the_next_question_works(
    client: Client, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"this is not a picture")
    with pytest.raises(AppError, match=r"bad\.png"):
        client.predict("What?", [handle_file(tmp_path / "bad.png")], None, api_name="/image")
    assert client.predict("Say hello.", max_new_tokens=16, api_name="/text")[0]


def test_a_conversation_takes_one_question_at_a_time(tmp_path: Path) -> None:
    conversation, there, gone = Conversation(), str(tmp_path / "a.png"), str(tmp_path / "b.png")
    Path(there).touch()
    conversation.begin(Exchange("first"))
    with pytest.raises(UserError, match="wait"):
        conversation.begin(Exchange("second"))
    conversation.exchanges[-1] = Exchange("first", (there, gone), answer=ANSWERED)
    assert conversation.settle() is None
    conversation.begin(Exchange("second"))
    (turn,) = conversation.history()
    assert (turn.question, turn.answer, turn.images) == ("first", "A cat.", (there,))


def test_a_question_that_got_no_answer_goes_back_to_the_box_before_what_was_typed_since() -> None:
    conversation = Conversation()
    conversation.begin(Exchange("lost?", ("a.png",)))
    returned = conversation.settle()
    assert returned is not None
    assert not conversation.exchanges
    assert returned.composed_before({"text": "new", "files": ["b.png"]}) == {
        "text": "lost?\nnew",
        "files": ["a.png", "b.png"],
    }


def test_words_that_come_after_a_stop_change_nothing() -> None:
    conversation = Conversation([Exchange("old", answer=ANSWERED)])
    stopped = Exchange("stopped")
    conversation.begin(stopped)
    assert conversation.settle() is stopped
    conversation.begin(Exchange("new"))
    assert conversation.grow(stopped, ANSWERED) is None
    conversation.finish(stopped)
    assert not conversation.finished
    assert [exchange.text for exchange in conversation.exchanges] == ["A cat.", ""]
    assert conversation.to_answer() is conversation.exchanges[-1]


def test_what_nobody_foresaw_is_one_sentence_for_the_visitor_and_a_trace_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail() -> None:
        raise RuntimeError("secret detail")

    with pytest.raises(gr.Error) as shown:
        plainly(fail)()
    assert shown.value.message == UNEXPECTED
    assert "secret detail" in caplog.text


def test_the_name_of_a_file_cannot_bring_markup_into_a_message() -> None:
    assert plain_sentence(UserError("<img src=x> is no picture")) == "&lt;img src=x&gt; is no picture"


@pytest.mark.parametrize("value", [15, 99999, None])
def test_a_number_out_of_its_range_is_named(value: float | None) -> None:
    length = SimpleNamespace(inputs=[settings_panel(Settings()).max_new_tokens], preprocess=True)
    with pytest.raises(gr.Error, match="Longest answer, in tokens: choose a number between 16 and 512."):
        PlainBlocks().validate_inputs(length, [value])  # type: ignore[arg-type]
    PlainBlocks().validate_inputs(length, [512])  # type: ignore[arg-type]
    panel = settings_panel(Settings(max_new_tokens=800, temperature=2, top_p=0.01))  # a preset may have more
    longer = SimpleNamespace(inputs=[panel.max_new_tokens, panel.temperature, panel.top_p], preprocess=True)
    PlainBlocks().validate_inputs(longer, [800, 2, 0.01])  # type: ignore[arg-type]


def test_recordings_and_pictures_in_the_box_are_told_apart() -> None:
    exchange = composed_exchange({"text": "hi", "files": ["a.png", "b.wav"]})
    assert (exchange.pictures, exchange.recording) == (("a.png",), "b.wav")
    with pytest.raises(UserError, match="one recording"):
        composed_exchange({"text": "", "files": ["b.wav"]}, "c.wav")
    assert composed_exchange(NOTHING).question == ""
    assert composed_exchange({"text": "", "files": ["A.WEBM"]}).recording == "A.WEBM"  # as browsers record


def test_markup_and_control_tokens_are_shown_as_typed() -> None:
    hostile = "<script>alert(1)</script> &lt; <|im_end|>"
    shown = messages(
        Conversation([Exchange(hostile, (), answer=Answer(text=hostile, draft="<b>x</b>", stage="done"))])
    )
    texts = [message["content"][0]["value"] for message in shown]
    assert not any("<script>" in text or "<b>" in text for text in texts)
    assert escape(hostile) in texts[0] and all("&lt;|im_end|&gt;" in text for text in texts)


@pytest.mark.parametrize(
    ("answer", "note"),
    [
        (replace(ANSWERED, left_out=1), "The oldest turn no longer fits and was left out."),
        (replace(ANSWERED, left_out=3), "The 3 oldest turns no longer fit and were left out."),
        (replace(ANSWERED, ended=False), "cut off at the length limit"),
    ],
)
def test_the_chat_says_what_did_not_fit(answer: Answer, note: str) -> None:
    def shown(answer: Answer, busy: bool = False) -> str:
        conversation = Conversation([Exchange("What?", answer=answer)])
        conversation.busy = busy
        return str(messages(conversation))

    assert note in shown(answer)
    assert note not in shown(answer, busy=True)  # not while it grows
    assert 'class="note"' not in shown(ANSWERED)


def test_only_an_answer_that_can_go_on_is_offered_to() -> None:
    def shown(text: str) -> str:
        answer = replace(ANSWERED, text=text, route="image", ended=False)
        return str(messages(Conversation([Exchange("What?", ("a.png", "b.png"), answer=answer)])))

    assert 'data-action="go_on"' in shown("A cat and a dog")
    several = shown(joined(["A cat.", "A dog"]))
    assert 'data-action="go_on"' not in several and "cut off at the length limit" in several


def test_what_was_asked_about_a_picture_is_not_suggested_again() -> None:
    def suggested(*asked: str, pictures: tuple[str, ...] = ("cat.jpg",)) -> list[str]:
        answered = Answer(text="A cat.", route="image", stage="done")
        first, *more = asked
        talk = Conversation([Exchange(each, answer=answered) for each in ("Describe it.", first, *more)])
        talk.exchanges[1] = replace(
            talk.exchanges[1], pictures=pictures
        )  # what was asked before counts no more
        return re.findall(r'data-action="suggested">(.+?)<', str(messages(talk)))

    assert suggested("And now?") == ["What color is it?", "Describe the picture.", "What is it used for?"]
    assert "Describe the picture." not in suggested("Describe the picture.", "And now?")
    assert "Describe the picture." not in suggested("Beschreibe das Bild.")  # as a German visitor is shown it
    assert len(suggested("What color is it?")) == 3
    assert "What color is it?" not in suggested("What colours does the cup have?")
    assert "What is it used for?" not in suggested("What is the thing on the left used for?")
    both = ("cat.jpg", "dog.jpg")
    assert suggested("And now?", pictures=both) == ["Describe the pictures."]
    assert not suggested("Describe both.", pictures=both)


def test_the_page_shows_the_assistants_notice_above_the_tabs() -> None:
    header, notice, *_ = views_of(SimpleNamespace(**UNSEEING, notice="torch serves <these> weights."))  # type: ignore[arg-type]
    assert "tiny · none · torch · CPU" in header.value
    assert "torch serves &lt;these&gt; weights." in notice.value
    _, notice, *_ = views_of(SimpleNamespace(**UNSEEING, notice=""))  # type: ignore[arg-type]
    assert not notice.visible


def test_the_trace_leaves_out_what_does_not_apply() -> None:
    assert not {"Heard", "Seen", "Left out"} & set(dict(trace_of(ANSWERED)))
    assert dict(trace_of(replace(ANSWERED, seen="cat 90%")))["Seen"] == "cat 90%"
    assert dict(trace_of(ANSWERED))["Clean-up"] == "accepted"
