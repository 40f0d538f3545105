"""The endpoint under /v1 beside the page, over a tiny model: OpenAI's own client asks it, and Open WebUI's shapes."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from gradio_client import Client
from openai import OpenAI
from PIL import Image

from tests.conftest import served
from tests.test_assistant import ANSWERS, Recording, asked, assistant_of
from tests.tiny import overfit, picture, tiny_model
from vlm import Answer, Assistant, Settings
from vlm.chat.local_writer import LocalWriter
from vlm.errors import UserError
from vlm.inputs.speech import Heard
from vlm.model.adapter import save_adapter
from vlm.model.prompts import PromptTurn, encode
from vlm.serving.environment import read_environment
from vlm.serving.limits import TryLater
from vlm.serving.openai.answers import Telling
from vlm.serving.openai.requests import Message, conversation
from vlm.serving.serving import Serving

pytestmark = pytest.mark.server

BASE = "qwen2.5-coder-1.5b-instruct"  # as the tiny config calls it
ADAPTER = "tiny"
Messages = list[Any]


class Reading:
    """A transcriber that hears the words that the file is made of."""

    def transcribe(self, audio: str, language: str = "") -> Heard:
        if language == "xx":
            raise UserError("The speech model does not know the language 'xx'. Please choose another.")
        return Heard(Path(audio).read_text(), 1.5, language=language or "en")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Assistant:
    """It says what it sees in four pictures, and babbles about all else."""
    model = tiny_model(tags=2)
    assert overfit(model, ANSWERS, steps=120) < 0.1
    folder = tmp_path_factory.mktemp("adapters") / ADAPTER
    made = assistant_of(model, rewrites="This is a red square")
    save_adapter(model, folder, made.config, {})
    return Assistant(made.pipeline, Reading(), made.config, folder)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def nothing_was_asked(tiny: Assistant) -> Iterator[None]:
    asked(tiny).clear()
    yield
    assert engine_of(tiny).open == 0  # no answer is left under way


def engine_of(tiny: Assistant) -> Recording:
    assert isinstance(tiny.engine, Recording)
    return tiny.engine


@contextmanager
def page_of(serving: Serving) -> Iterator[str]:
    with served(serving) as address:
        yield address.rstrip("/")


def serving_with(tiny: Assistant, environment: dict[str, str]) -> Serving:
    return Serving(tiny, settings=read_environment(environment))


@pytest.fixture(scope="module")
def serving(tiny: Assistant) -> Serving:
    return Serving(tiny)


@pytest.fixture(scope="module")
def address(serving: Serving) -> Iterator[str]:
    with page_of(serving) as served:
        yield served


@pytest.fixture(scope="module")
def client(address: str) -> OpenAI:
    return client_of(address)


def client_of(address: str, key: str = "none") -> OpenAI:
    return OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0, timeout=60)


def png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def data_url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def shown(url: str, question: str = "Which?") -> Messages:
    parts = [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": url}}]
    return [{"role": "user", "content": parts}]


def red() -> Messages:
    return shown(data_url(png(picture("red"))))


def words(*said: str) -> Messages:
    """Questions and answers by turns."""
    roles = ("user", "assistant")
    return [{"role": roles[number % 2], "content": text} for number, text in enumerate(said)]


def ask(client: OpenAI, messages: Messages, model: str = BASE, **more: Any) -> Any:
    return client.chat.completions.create(model=model, messages=messages, **more)


def told(client: OpenAI, messages: Messages, **more: Any) -> str:
    return ask(client, messages, **more).choices[0].message.content


def test_the_models_are_the_adapter_and_the_base(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [ADAPTER, BASE]
    assert client.models.retrieve(ADAPTER).owned_by == "ask-a-picture"
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-4o' here. There is: tiny, qwen") as refused:
        ask(client, words("Hello?"), model="gpt-4o")
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("model", [ADAPTER, BASE])
def test_a_picture_goes_to_the_adapter_and_the_clean_up_whatever_the_name(
    client: OpenAI, tiny: Assistant, model: str
) -> None:
    answer = ask(client, red(), model=model)
    assert (answer.model, answer.choices[0].message.content) == (ADAPTER, "This is a red square.")
    assert (answer.choices[0].finish_reason, answer.object) == ("stop", "chat.completion")
    draft, rewriting = asked(tiny)
    assert (draft.adapter, rewriting.adapter) == (True, False)
    assert answer.usage.prompt_tokens == draft.length
    assert answer.usage.completion_tokens == len("a red square") + 1  # a token a character, and the end


def test_words_go_to_the_base_model_with_real_counts_of_tokens(client: OpenAI, tiny: Assistant) -> None:
    answer = ask(client, words("Hello?"), model=ADAPTER, max_tokens=7)
    (only,) = asked(tiny)
    writer = tiny.pipeline.writer
    assert isinstance(writer, LocalWriter)
    prompt = encode(writer.tokenizer, [PromptTurn("Hello?")], 0).ids
    assert (answer.model, only.adapter) == (BASE, False)
    assert answer.usage.prompt_tokens == len(prompt)
    assert answer.usage.completion_tokens in (7, answer.usage.total_tokens - len(prompt))
    settings = Settings(7)
    assert answer.choices[0].message.content == tiny.answer("Hello?", settings=settings).text


def babbling(tiny: Assistant) -> Assistant:
    """The same model, whose base babbles."""
    writer = tiny.pipeline.writer
    assert isinstance(writer, LocalWriter)
    engine = Recording(engine_of(tiny).engine, writer.tokenizer)
    pipeline = replace(tiny.pipeline, writer=replace(writer, engine=engine))
    return Assistant(pipeline, Reading(), tiny.config, tiny.adapter_folder)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def babbler(tiny: Assistant) -> Iterator[OpenAI]:
    with page_of(Serving(babbling(tiny))) as served:
        yield client_of(served)


def test_a_stream_tells_the_same_as_the_whole(babbler: OpenAI) -> None:
    for messages in (words("Hello?"), red()):
        whole = ask(babbler, messages, max_completion_tokens=40)
        options = {"include_usage": True}
        chunks = list(ask(babbler, messages, max_completion_tokens=40, stream=True, stream_options=options))
        *pieces, last, counts = chunks
        assert pieces[0].choices[0].delta.role == "assistant"
        text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
        assert text == whole.choices[0].message.content
        assert last.choices[0].finish_reason == whole.choices[0].finish_reason
        assert (counts.choices, counts.usage) == ([], whole.usage)
        assert len({chunk.id for chunk in chunks}) == 1
    assert len(list(ask(babbler, words("Hello?"), max_tokens=40, stream=True))) > 10


def test_a_seed_repeats_the_draw(babbler: OpenAI) -> None:
    drawn = partial(told, babbler, words("Hello?"), max_tokens=30, temperature=1.5, top_p=1.0)
    assert drawn(seed=3) == drawn(seed=3) != drawn(seed=4)
    assert drawn(seed=-1)


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_ends_the_answer_before_it(babbler: OpenAI, stream: bool) -> None:
    def answered(**more: Any) -> tuple[str, str, int]:
        made = ask(babbler, words("Hello?"), max_tokens=40, stream=stream, **more)
        if not stream:
            return made.choices[0].message.content, made.choices[0].finish_reason, 0
        chunks = list(made)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        return text, chunks[-1].choices[0].finish_reason, len(chunks)

    text, reason, _ = answered()
    stop = text[10:13]
    assert len(text) > 13 and stop.strip() == stop
    assert answered(stop=stop)[:2] == (text[: text.index(stop)].rstrip(), "stop")
    assert answered(stop=["\u1234", stop])[1] == "stop"
    assert answered(stop=stop + "\u1234")[:2] == (
        text,
        reason,
    )  # its beginning is told when it proves not to be it


def test_a_text_is_told_up_to_what_may_be_the_beginning_of_a_stop() -> None:
    telling = Telling(["END", "###"], "full")
    answer = partial(Answer, stage="drafting")
    assert telling.new(answer(" One E")) == "One"
    assert telling.new(answer(" One EN ")) == " EN"
    assert telling.new(answer(" One EN ##")) == ""
    assert telling.new(answer(" One EN ## two")) == " ## two"
    assert telling.new(answer(" One EN ## two ### three")) == ""
    assert telling.stopped and telling.told == "One EN ## two"


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_was_read_to_its_end_counts_as_answered(
    client: OpenAI, address: str, stream: bool
) -> None:
    def counts() -> dict[str, float]:
        lines = httpx.get(f"{address}/metrics").text.splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}

    before = counts()
    answered = ask(client, words("What is this?"), stream=stream)
    if stream:
        assert [chunk.choices[0].finish_reason for chunk in answered][-1] in ("stop", "length")
    after = counts()
    changed = {each for each in after if "questions_total" in each and after[each] != before.get(each, 0)}
    assert changed == {'vlm_questions_total{route="text",ended="answered"}'}


@pytest.mark.parametrize("stream", [True, False])
def test_who_is_to_come_later_is_told_when_in_the_way_that_clients_understand(
    client: OpenAI, serving: Serving, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    def refuse(*_: Any) -> None:
        raise TryLater("The queue is full: 20 questions are waiting.", 41)

    monkeypatch.setattr(serving.allowance, "take", refuse)
    with pytest.raises(openai.RateLimitError, match="The queue is full.*try again in 41 seconds") as refused:
        ask(client, words("Hello?"), stream=stream)
    assert refused.value.response.headers["retry-after"] == "41"


def test_a_request_too_many_says_when_to_come_back(client: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlm.serving.openai.asking.MAX_EVENTS", -8)  # with the places of the engine: none
    with pytest.raises(openai.RateLimitError, match="Too many questions are waiting now") as refused:
        client.chat.completions.create(model=BASE, messages=[{"role": "user", "content": "Hello?"}])
    assert int(refused.value.response.headers["retry-after"]) >= 1


def test_a_conversation_is_handed_on_with_its_roles(client: OpenAI, tiny: Assistant) -> None:
    said: Messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "One?"},
        {"role": "user", "content": [{"type": "text", "text": "Two?"}, {"type": "text", "text": "Three?"}]},
        {"role": "assistant", "content": "Four."},
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Five?"},
    ]
    told(client, said, max_tokens=2)
    (only,) = asked(tiny)
    expected = (
        "<|im_start|>system\nBe kind.\n\nBe brief.<|im_end|>\n<|im_start|>user\nOne?\n\nTwo?\n\nThree?<|im_end|>\n"
        "<|im_start|>assistant\nFour.<|im_end|>\n<|im_start|>user\nFive?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert only.prompt == expected


def test_messages_of_one_side_in_a_row_are_joined_once_however_many_they_are() -> None:
    many = [Message(role="user", content="x" * 1000)] * 20_000
    start = time.process_time()
    _, (said,) = conversation(many)
    assert len(said.question) == 20_000 * 1002 - 2
    assert time.process_time() - start < 3  # each joined to all before it took minutes


def test_an_answer_without_words_is_none(client: OpenAI, tiny: Assistant) -> None:
    said = [*words("One?", " "), *words("Two?"), {"role": "assistant", "content": None}, *words("Three?")]
    told(client, said, max_tokens=2, stream=None)
    assert "user\nOne?\n\nTwo?\n\nThree?<|im_end|>" in asked(tiny)[0].prompt


def test_whoever_waits_holds_files_and_no_decoded_pictures(
    client: OpenAI, tiny: Assistant, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[Any] = []
    stream = serving.stream
    monkeypatch.setattr(serving, "stream", lambda *given: handed.append(given) or stream(*given))
    told(client, [*red(), {"role": "assistant", "content": "A square."}, *red()])
    ((_, pictures, _, (earlier,), _),) = handed
    assert all(isinstance(each, Path) for each in (*pictures, *earlier.images))
    assert not any(each.exists() for each in pictures)  # they go with the request


def test_a_picture_earlier_in_the_conversation_is_still_seen(client: OpenAI, tiny: Assistant) -> None:
    answer = ask(client, [*red(), {"role": "assistant", "content": "A square."}, *words("Which?")])
    assert answer.model == ADAPTER
    assert "@" in asked(tiny)[0].prompt.partition("A square.")[0]


def test_where_the_talk_begins_anew_with_each_picture_as_many_can_be_talked_about_as_on_the_page(
    client: OpenAI, tiny: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    for several, refused in (
        (True, "can hold 8 pictures"),
        (False, "At most 32 pictures can be sent at once"),
    ):
        monkeypatch.setattr(tiny, "pipeline", replace(tiny.pipeline, several_pictures=several))
        talk = [*red(), {"role": "assistant", "content": "A red square."}] * (8 if several else 31)
        assert told(client, [*talk, *(words("And?") if several else red())])
        with pytest.raises(openai.BadRequestError, match=refused):
            told(client, [*talk, *red() * 2])


def test_speech_is_heard_and_asks_like_words(client: OpenAI, tiny: Assistant) -> None:
    def spoken(text: str) -> dict[str, Any]:
        audio = {"data": base64.b64encode(text.encode()).decode(), "format": "wav"}
        return {"role": "user", "content": [{"type": "input_audio", "input_audio": audio}]}

    answer = ask(client, [spoken("One?"), {"role": "assistant", "content": "Two."}, spoken("Three?")])
    (only,) = asked(tiny)
    assert answer.model == BASE
    assert only.prompt.index("One?") < only.prompt.index("Two.") < only.prompt.index("Three?")
    with pytest.raises(openai.BadRequestError, match="one recording at a time"):
        ask(client, [spoken("One?"), spoken("Two?")])


def test_uploaded_files_are_pictures_and_recordings_of_messages(client: OpenAI, tiny: Assistant) -> None:
    uploaded = client.files.create(file=("red.png", png(picture("red"))), purpose="vision")
    assert (uploaded.filename, uploaded.bytes) == ("red.png", len(png(picture("red"))))
    assert told(client, shown(uploaded.id)) == "This is a red square."
    spoken = client.files.create(file=("asked.wav", b"Which?"), purpose="user_data")
    files = [{"type": "file", "file": {"file_id": each.id}} for each in (uploaded, spoken)]
    assert told(client, [{"role": "user", "content": files}]) == "This is a red square."
    assert "Which?" in asked(tiny)[-2].prompt
    assert client.files.retrieve(uploaded.id).id == uploaded.id
    assert client.files.delete(uploaded.id).deleted
    with pytest.raises(openai.NotFoundError, match="no file"):
        ask(client, shown(uploaded.id))


def test_a_recording_is_transcribed(client: OpenAI) -> None:
    transcribe = client.audio.transcriptions.create
    recording = ("a.wav", b"Why is the sky blue?")
    assert transcribe(file=recording, model="whisper-1").text == "Why is the sky blue?"
    assert (
        transcribe(file=recording, model="whisper-base", response_format="text") == "Why is the sky blue?\n"
    )
    verbose = transcribe(file=recording, model="whisper-1", response_format="verbose_json", language="en")
    assert (verbose.language, verbose.duration) == ("en", 1.5)
    verbose = transcribe(file=recording, model="whisper-1", response_format="verbose_json", language="de")
    assert verbose.language == "de"
    for wrong, message in (
        ({"model": "gpt-4o-transcribe"}, "heard by: whisper-1"),
        ({"language": "xx"}, "does not know the language"),
        ({"response_format": "srt"}, "json, text, verbose_json"),
        ({"stream": True}, "comes whole"),
    ):
        with pytest.raises(openai.APIStatusError, match=message):
            transcribe(**({"file": recording, "model": "whisper-1"} | wrong))  # type: ignore[call-overload]


def test_open_webui_is_answered_in_its_shapes(address: str) -> None:
    """What it sends beside OpenAI's own keys, and how it reads a stream."""
    body = {
        "stream": True,
        "model": ADAPTER,
        "messages": [{"role": "system", "content": "Today is Monday."}, *red()],
        "params": {},
        "tool_servers": [],
        "features": {"image_generation": False, "web_search": False},
        "variables": {"{{USER_NAME}}": "User"},
        "session_id": "8Yd1",
        "chat_id": "4f3b",
        "background_tasks": {"title_generation": True},
        "tools": None,
        "temperature": 0.1,
        "stream_options": {"include_usage": True},
    }
    headers = {"Authorization": "Bearer none", "Content-Type": "application/json"}
    with httpx.stream("POST", f"{address}/v1/chat/completions", json=body, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert (
        "".join(c["choices"][0]["delta"].get("content", "") for c in chunks[:-1]) == "This is a red square."
    )
    assert chunks[-1]["usage"]["total_tokens"] > 13
    assert httpx.get(f"{address}/v1/models", headers=headers).json()["data"][0]["id"] == ADAPTER


NO_PICTURE = data_url(b"this is not a picture")
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no picture": ({"messages": shown(NO_PICTURE)}, "not a picture that can be read"),
    "no base64": ({"messages": shown("data:image/png;base64,%%%")}, "no base64"),
    "no data URL": ({"messages": shown("cat.png")}, "data:image"),
    "an address": ({"messages": shown("https://example.com/cat.png")}, "not fetched.*VLM_PICTURE_HOSTS"),
    "an address here": ({"messages": shown("http://127.0.0.1/cat.png")}, "not fetched"),
    "a file": ({"messages": shown("file:///etc/passwd")}, "data:image"),
    "many pictures": ({"messages": red() * 9}, "can hold 8 pictures"),
    "the assistant first": (
        {"messages": words("", "Hi.", "Hello?")[1:]},
        "begins with a message of the user",
    ),
    "instructions last": (
        {"messages": [*words("Hello?", "Hi."), {"role": "system", "content": "Be kind."}]},
        "last message must be the user's",
    ),
    "a long talk": ({"messages": words(*["x" * 7000] * 601)}, "At most 4,000,000 characters"),
    "the assistant last": ({"messages": words("Hello?", "Hi.")}, "last message must be the user's"),
    "no message": ({"messages": []}, "messages: "),
    "no question": ({"messages": words(" ")}, "type or speak a question"),
    "a long question": ({"messages": words("x" * 9000)}, "Please shorten it"),
    "an unknown role": ({"messages": [{"role": "king", "content": "Hello?"}]}, r"messages\.0\.role"),
    "a tool's answer": ({"messages": [{"role": "tool", "content": "4"}]}, "Tools are not supported"),
    "tools": ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools is not supported"),
    "an unknown part": (
        {"messages": [{"role": "user", "content": [{"type": "video_url"}]}]},
        r"messages\.0\.content\.0\.type: Input should be 'text'",
    ),
    "an address that is none": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://["}}]}
            ]
        },
        "address is none",
    ),
    "an empty part": (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "no image_url",
    ),
    "two answers": ({"n": 2}, "n is not supported"),
    "JSON": ({"response_format": {"type": "json_object"}}, "response_format is not supported"),
    "heat": ({"temperature": 3}, "temperature must be between 0 and 2"),
    "no length": ({"max_tokens": 0}, "max_tokens"),
    "many stops": ({"stop": list("abcde")}, "At most 4 stops"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_answered_is_refused_in_openais_form_and_the_next_request_works(
    client: OpenAI, wrong: str
) -> None:
    changes, message = WRONG[wrong]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match=message) as refused:
            ask(client, **({"messages": words("Hello?"), "stream": stream} | changes))
        assert refused.value.type == "invalid_request_error"
    assert told(client, red()) == "This is a red square."


@pytest.mark.parametrize(
    ("content", "kind", "status", "message"),
    [
        (b"{", "application/json", 400, "no JSON"),
        (b"[" * 100_000, "application/json", 400, "no JSON"),
        (b"[]", "application/json", 400, "JSON object"),
        (b'{"messages": 1}', "application/json", 400, "model"),
        (b"{}", "text/plain", 415, "Content-Type: application/json"),
    ],
)
def test_a_body_that_is_no_request_is_refused(
    address: str, content: bytes, kind: str, status: int, message: str
) -> None:
    headers = {"Content-Type": kind}
    response = httpx.post(f"{address}/v1/chat/completions", content=content, headers=headers)
    assert response.status_code == status
    assert message in response.json()["error"]["message"]


@pytest.mark.slow
@pytest.mark.parametrize("announced", [True, False])
def test_a_body_of_100_mb_is_refused_and_the_next_request_works(
    address: str, client: OpenAI, announced: bool
) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        for _ in range(100):
            yield b"x" * 2**20

    for path, kind in (
        ("chat/completions", "application/json"),
        ("files", "multipart/form-data; boundary=b"),
    ):
        content: Any = b"".join(pieces()) if announced else pieces()
        headers = {"Content-Type": kind}
        response = httpx.post(f"{address}/v1/{path}", content=content, headers=headers, timeout=60)
        status, message = (411, "how large") if path == "files" and not announced else (413, "At most")
        assert response.status_code == status
        assert message in response.json()["error"]["message"]
    assert told(client, red()) == "This is a red square."


def test_what_is_not_there_is_said_in_openais_form(address: str) -> None:
    for method, path in (("GET", "chat/completions"), ("POST", "embeddings"), ("DELETE", "models")):
        response = httpx.request(method, f"{address}/v1/{path}")
        assert (response.status_code, response.json()["error"]["type"]) == (404, "not_found_error")


def test_the_page_is_still_there(address: str) -> None:
    assert "<html" in httpx.get(address).text
    text, _ = Client(address, verbose=False).predict("Hello?", max_new_tokens=16, api_name="/text")
    assert text


class Slow(Recording):
    """An engine that takes its time for each token and never ends."""

    def stream(self, prompt: Any, adapter: bool, sampling: Any) -> Iterator[int]:
        self.open += 1
        try:
            for _ in range(sampling.max_new_tokens):
                time.sleep(0.02)
                yield 60
        finally:
            self.open -= 1


@pytest.fixture(scope="module")
def slow(tiny: Assistant) -> Iterator[tuple[str, Slow, Serving]]:
    writer = tiny.pipeline.writer
    assert isinstance(writer, LocalWriter)
    engine = Slow(engine_of(tiny).engine, writer.tokenizer)
    pipeline = replace(tiny.pipeline, writer=replace(writer, engine=engine))
    serving = Serving(Assistant(pipeline, Reading(), tiny.config, tiny.adapter_folder))  # type: ignore[arg-type]
    with page_of(serving) as served:
        yield served, engine, serving


def wait_until(happened: Any, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("picture_too", [False, True])
def test_whoever_goes_away_stops_the_model(
    slow: tuple[str, Slow, Serving], stream: bool, picture_too: bool
) -> None:
    address, engine, _ = slow
    body = {"model": BASE, "messages": red() if picture_too else words("Hello?"), "stream": stream}
    body |= {"max_tokens": 1000}
    content = json.dumps(body).encode()
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    import socket

    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as connection:
        connection.sendall(request.encode() + content)
        wait_until(lambda: engine.open == 1)
    wait_until(lambda: engine.open == 0, seconds=1)


def test_a_request_waits_for_its_turn_behind_the_pages_questions(
    slow: tuple[str, Slow, Serving], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, engine, serving = slow
    page = serving.stream("Hello?")
    assert next(page)
    answers: list[str] = []
    waiting = threading.Thread(
        target=lambda: answers.append(told(client_of(address), words("Hello?"), max_tokens=2))
    )
    waiting.start()
    wait_until(lambda: len(serving._gate._line) == 1)
    monkeypatch.setattr("vlm.serving.openai.asking.MAX_EVENTS", 0)
    with pytest.raises(openai.RateLimitError, match="Too many questions"):
        ask(client_of(address), words("Hello?"))
    assert not answers and engine.open == 1
    page.close()
    waiting.join(5)
    assert answers


def test_a_stream_that_has_nothing_to_tell_says_so_now_and_then(
    slow: tuple[str, Slow, Serving], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, _, serving = slow
    monkeypatch.setattr("vlm.serving.openai.routes.SILENCE_SECONDS", 0.05)
    page = serving.stream("Hello?")
    assert next(page)
    body = {"model": BASE, "messages": words("Hello?"), "stream": True, "max_tokens": 2}
    with httpx.stream("POST", f"{address}/v1/chat/completions", json=body, timeout=60) as response:
        lines = response.iter_lines()
        assert any(line.startswith(":") for line in islice(lines, 20))
        page.close()
        assert list(lines)[-2:] == ["data: [DONE]", ""]
    assert told(client_of(address), words("Hello?"), max_tokens=2)


def test_an_error_within_a_stream_is_told_in_it(
    slow: tuple[str, Slow, Serving], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, engine, _ = slow

    def breaks(*_: Any) -> Iterator[int]:
        yield 60
        raise RuntimeError("a cable was pulled")

    monkeypatch.setattr(engine, "stream", breaks)
    with pytest.raises(openai.APIError, match="noted in the log"):
        list(ask(client_of(address), words("Hello?"), stream=True))
    with pytest.raises(openai.InternalServerError, match="noted in the log"):
        ask(client_of(address), words("Hello?"))


@pytest.mark.slow
def test_a_key_is_wanted_where_one_is_set_and_others_than_this_machine_need_one(tiny: Assistant) -> None:
    for alone in ({}, {"HOST": "127.0.0.1"}, {"HOST": "::1"}, {"HOST": "localhost"}):
        assert not read_environment(alone).public
    for others in (
        {"HOST": "0.0.0.0"},
        {"SPACE_ID": "me/mine"},
        {"ALLOWED_HOSTS": "a.example"},
        {"AUTH": "a:b"},
    ):
        assert read_environment(others).public
    public = {
        "AUTH": "a:b"
    }  # which the page asks nobody for here, and which still listens on this machine only
    with page_of(serving_with(tiny, public | {"VLM_API_KEY": "säcret"})) as address:
        models = f"{address}/v1/models"
        for given in ({}, {"Authorization": "Bearer secret"}, {"Authorization": "Basic säcret".encode()}):
            refused = httpx.get(models, headers=given)
            assert refused.status_code == 401
            assert refused.json()["error"]["code"] == "invalid_api_key"
        given = {"Authorization": "Bearer säcret".encode()}
        assert httpx.get(models, headers=given).status_code == 200
        assert httpx.post(f"{address}/v1/chat/completions", content=b"x" * 2**20).status_code == 401
    with page_of(serving_with(tiny, public)) as address:
        with pytest.raises(openai.PermissionDeniedError, match="off here.*VLM_API_KEY"):
            ask(client_of(address), words("Hello?"))
        assert "<html" in httpx.get(address).text


def test_a_page_from_elsewhere_cannot_use_the_api_of_this_machine(address: str) -> None:
    models = f"{address}/v1/models"
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": "evil.example:7860"}):
        refused = httpx.get(models, headers=headers)
        assert refused.status_code == 403
        assert refused.json()["error"]["type"] == "permission_error"
    assert httpx.get(models, headers={"Origin": address}).status_code == 200


@pytest.mark.slow
def test_pictures_are_fetched_from_the_hosts_that_are_allowed(tiny: Assistant, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(png(picture("red")))
    (tmp_path / "large.png").write_bytes(b"x" * (21 * 2**20))
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as host:
        threading.Thread(target=host.serve_forever, args=(0.02,), daemon=True).start()
        name = f"127.0.0.1:{host.server_address[1]}"
        with page_of(serving_with(tiny, {"VLM_PICTURE_HOSTS": f"example.com, {name}"})) as address:
            client = client_of(address)
            assert told(client, shown(f"http://{name}/red.png")) == "This is a red square."
            for path, message in (("none.png", "answered with 404"), ("large.png", "larger than 20 MB")):
                with pytest.raises(openai.BadRequestError, match=message):
                    ask(client, shown(f"http://{name}/{path}"))
            with pytest.raises(openai.BadRequestError, match="not fetched"):
                ask(client, shown("http://127.0.0.1:1/red.png"))
        host.shutdown()
