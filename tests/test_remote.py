"""The remote engine: the one reply pipeline over a server that speaks vLLM's shapes, and over llama.cpp's own server with
the real model. Faults of a server become a sentence, and the next question works."""

import base64
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image, ImageFilter

from tests.chat_server import (
    CHOICE,
    CHUNK,
    Answer,
    ChatServer,
    Endless,
    Handler,
    chat_server,
    cuts,
    drops,
    echoes,
    error,
    hangs,
    refuses,
    says,
)
from tests.conftest import EXAMPLES, ROOT, free_port
from tests.fake_assistant import COLOURS, result_of, write_colours
from tests.llama_server import llama_server
from tests.test_gguf_folder import LENGTH, MERGED, Certain, language_file, torch_model
from tests.test_llava_import import pictures
from tests.test_serving import wait_until
from tests.tiny import picture
from tests.tiny_llava import save_tiny_adapter
from vlm import Assistant, Settings, Turn, UserError, load_assistant
from vlm.adapters import export_adapter
from vlm.chat import clean_up
from vlm.chat.remote_writer import JPEG_QUALITY, RemoteWriter
from vlm.chat.reply import MAX_PICTURES, Pipeline
from vlm.config import REMOTE, LanguageConfig, ModelConfig, load_model_config
from vlm.engines.remote import ADDRESS, EXTENSIONS, KEY, RemoteServer
from vlm.inputs.images import as_jpeg
from vlm.inputs.speech import Heard
from vlm.model.prompts import PromptTurn
from vlm.weights.resolve import gguf_file

pytestmark = pytest.mark.server

CONFIG = ModelConfig("far", language=LanguageConfig(weights="base", engine=REMOTE), adapter="adapter")


class Hearing:
    def transcribe(self, audio: str, language: str = "") -> Heard:
        return Heard(audio, 1.0, language="en")


def assistant_at(address: str, silence: float = 20.0, key: str = "") -> Assistant:
    writer = RemoteWriter(RemoteServer(address, key, silence), "base", "adapter")
    pipeline = Pipeline(writer, "Look.", "Be brief.")
    return Assistant(pipeline, Hearing(), CONFIG, None)  # type: ignore[arg-type]


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as served:
        yield served


@pytest.fixture
def far(server: ChatServer) -> Iterator[Assistant]:
    made = assistant_at(server.address)
    yield made
    made.close()


def test_words_go_to_the_base_model_and_the_answer_grows(server: ChatServer, far: Assistant) -> None:
    server.answers.append(says("Par", "is", "."))
    snapshots = list(far.stream("What is the capital of France?"))
    grown = [text for text, _ in groupby(each.text for each in snapshots) if text]
    assert grown == ["Par", "Paris", "Paris."]
    last = snapshots[-1]
    assert (last.route, last.adapter, last.model, last.engine) == ("text", None, "base", "remote")
    assert (last.prompt_tokens, last.tokens, last.ended, last.stage) == (31, 7, True, "done")
    (asked,) = server.asked
    assert asked["model"] == "base"
    assert asked["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the capital of France?"},
    ]


def test_a_picture_goes_to_the_adapter_and_its_draft_to_the_base_model(
    server: ChatServer, far: Assistant
) -> None:
    server.answers.extend([says("brown dog", " running beach"), says("A brown dog is running on the beach.")])
    snapshots = list(far.stream("What is this?", [picture("red")]))
    last = snapshots[-1]
    stages = [stage for stage, _ in groupby(each.stage for each in snapshots)]
    assert stages == ["looking", "drafting", "cleaning", "done"]
    assert (last.draft, last.text) == ("brown dog running beach", "A brown dog is running on the beach.")
    assert (last.clean_up, last.adapter, last.seen) == ("accepted", "adapter", "")
    draft, rewriting = server.asked
    assert (draft["model"], rewriting["model"]) == ("adapter", "base")
    system, question = draft["messages"]
    assert system["content"] == "Look."
    shown, words = question["content"]
    assert words == {"type": "text", "text": "What is this?"}
    sent = base64.b64decode(shown["image_url"]["url"].removeprefix("data:image/jpeg;base64,"))
    red, green, blue = Image.open(BytesIO(sent)).convert("RGB").getpixel((8, 8))
    assert red > 240 and max(green, blue) < 15
    assert rewriting["messages"][0]["content"] == clean_up.SYSTEM
    assert "brown dog running beach" in rewriting["messages"][-1]["content"].lower()


def test_a_follow_up_sends_the_conversation_with_its_picture(server: ChatServer, far: Assistant) -> None:
    history = [Turn("What is this?", "A cup.", (picture("red"),))]
    far.answer("What color is it?", history=history)
    _, first, answer, second = server.asked[0]["messages"]
    assert [part["type"] for part in first["content"]] == ["image_url", "text"]
    assert answer == {"role": "assistant", "content": "A cup."}
    assert second["content"] == "What color is it?"


def test_speech_goes_to_the_base_model(server: ChatServer, far: Assistant) -> None:
    answer = far.answer(audio="What is heard?")
    assert (answer.transcript, server.asked[0]["model"]) == ("What is heard?", "base")


def test_all_settings_reach_the_server(server: ChatServer) -> None:
    assistant = assistant_at(server.address, key="secret")
    chosen = Settings(12, 0.5, True, "full", 0.8, 0.1, 1.2, 7)
    assistant.answer("Hello?", settings=chosen)
    (asked,) = server.asked
    sent = [asked[name] for name in ("max_tokens", "temperature", "top_p", "min_p", "seed")]
    assert sent == [12, 0.5, 0.8, 0.1, 7]
    assert asked["repetition_penalty"] == asked["repeat_penalty"] == 1.2
    assert server.keys == ["Bearer secret"]
    assistant.close()


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, error("Unrecognized request argument supplied: top_k", "invalid_request_error", 400)),
        (422, {"detail": [{"loc": ["body", "min_p"], "msg": "Extra inputs are not permitted"}]}),
    ],
)
def test_a_server_that_knows_openais_settings_alone_gets_no_others(
    server: ChatServer, far: Assistant, status: int, message: dict[str, Any]
) -> None:
    server.answers.append(refuses(status, message))
    assert far.answer("Hello?").text == far.answer("Hello?").text == "All is well."
    first, *others = server.asked
    assert first.keys() >= EXTENSIONS and len(others) == 2  # it is remembered
    assert all(each.keys() == first.keys() - EXTENSIONS for each in others)


def test_a_text_may_hold_whatever_ends_a_line_elsewhere(server: ChatServer, far: Assistant) -> None:
    odd = "One\u2028two\u2029three\x85four\x0bfive"
    chunk = CHUNK | {"choices": [CHOICE | {"delta": {"content": odd}, "finish_reason": "stop"}]}

    def says_raw(handler: Handler, _: dict[str, Any]) -> None:
        handler.begin()
        handler.send(f"data: {json.dumps(chunk, ensure_ascii=False)}\r\n\r\ndata: [DONE]\r\n\r\n")
        handler.send("")

    server.answers.append(says_raw)
    assert far.answer("Hello?").text == odd


def test_a_model_that_writes_well_is_left_alone(server: ChatServer, far: Assistant) -> None:
    plainly, asked = Settings(clean_up=False), "What is written?"
    far.pipeline = replace(far.pipeline, puts_right=False)  # as with a preset that does not clean up
    for said in ('{"band": "Duran Duran"}', "The band is Duran Duran.", "def f(x): ...\n1,\n1", "a cup"):
        server.answers.append(says(said))
        answer = far.answer(asked, [picture("red")], settings=plainly)
        assert (answer.text, answer.draft) == (said, said)
    far.pipeline = replace(far.pipeline, puts_right=True)
    server.answers.append(says("a cup a cup a cup"))
    assert far.answer(asked, [picture("red")], settings=plainly).text == "A cup."


def test_an_answer_whose_length_was_used_up_by_thoughts_says_so(server: ChatServer, far: Assistant) -> None:
    server.answers.append(says(finish="length"))
    with pytest.raises(UserError, match="used up before its first word. Please allow a longer one"):
        far.answer("Hello?")


def test_an_answer_that_reached_the_length_limit_is_not_ended(server: ChatServer, far: Assistant) -> None:
    server.answers.append(says("One", " two", finish="length", counts=None))
    answer = far.answer("Count.")
    assert (answer.ended, answer.tokens) == (False, 2)


@pytest.mark.parametrize("how", ["speaks", "thinks", "silent"])
def test_a_stop_closes_the_connection(server: ChatServer, far: Assistant, how: str) -> None:
    endless = Endless(how)
    server.answers.append(endless)
    with closing(far.stream("Go on.")) as snapshots:
        next(snapshots)
        assert not endless.left.is_set()
    assert endless.left.wait(2)
    assert far.answer("Hello?").text == "All is well."


def test_letting_go_of_the_server_ends_what_is_under_way_and_leaves_no_thread(server: ChatServer) -> None:
    before = set(threading.enumerate())
    engine = RemoteServer(server.address, "", 20)
    server.otherwise = endless = Endless("silent")
    request = {"model": "base", "messages": [{"role": "user", "content": "Go on."}], "stream": True}
    answers = [engine.stream(request) for _ in range(2)]
    assert [next(answer) for answer in answers] == [None, None]
    engine.close()
    for answer in answers:
        with pytest.raises(UserError, match="let go of"):
            for _ in range(20):
                next(answer)
    assert endless.left.wait(2)
    assert not [each for each in set(threading.enumerate()) - before if each.name == "remote"]
    for ask in (engine.models, lambda: next(engine.stream(request))):
        with pytest.raises(UserError, match="let go of"):
            ask()


def test_a_server_that_disregards_the_length_limit_is_stopped_at_it(
    server: ChatServer, far: Assistant
) -> None:
    endless = Endless()
    server.answers.append(endless)
    answer = far.answer("Go on.", settings=Settings(5))
    assert (answer.ended, answer.text.split()) == (False, ["on"] * 6)
    assert endless.left.wait(2)


@pytest.mark.slow
def test_a_connection_that_drops_before_the_first_token_is_tried_again(
    server: ChatServer, far: Assistant
) -> None:
    server.answers.extend([drops, cuts("")])
    assert far.answer("Hello?").text == "All is well."
    assert len(server.asked) == 3


SICK = error("Engine core died", "InternalServerError", 500)
FAULTS: dict[str, tuple[Answer, str]] = {
    "is busy": (refuses(429, error("Too many", "TooManyRequests", 429)), "too many questions.*try again"),
    "fails": (refuses(500, SICK), r"failed \(500: Engine core died\)"),
    "is behind a proxy that fails": (refuses(502, b"<html>Bad gateway</html>"), r"failed \(502: no reason"),
    "wants a key": (refuses(401, error("Unauthorized", "", 401)), "wants a key.*VLM_REMOTE_KEY"),
    "refuses": (
        refuses(400, {"object": "error", "message": "At most 1 image(s)"}),
        "refused.*At most 1 image",
    ),
    "hangs": (hangs(2), "said nothing for 0.8 seconds"),
    "cuts the answer": (cuts("One"), "cut the answer off.*ask again"),
    "breaks in the stream": (cuts("One", error=SICK), "broke the answer off.*Engine core died"),
    "sends nonsense": (cuts("One", error="{"), "OpenAI-compatible.*VLM_REMOTE"),
    "sends another shape": (cuts("One", error=["?"]), "OpenAI-compatible.*VLM_REMOTE"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_at_fault_is_one_sentence_and_the_next_question_works(
    server: ChatServer, fault: str
) -> None:
    far = assistant_at(server.address, silence=0.8 if fault == "hangs" else 20)
    answer, message = FAULTS[fault]
    server.answers.append(answer)
    with pytest.raises(UserError, match=message) as refused:
        far.answer("Hello?")
    assert str(refused.value).startswith("The server 127.0.0.1:")
    assert far.answer("Hello?").text == "All is well."
    far.close()
    with pytest.raises(UserError, match="let go of"):
        far.engine.models()  # type: ignore[attr-defined]


def test_a_model_that_is_missing_is_named_with_those_that_are_there(
    server: ChatServer, far: Assistant
) -> None:
    server.models.remove("adapter")
    with pytest.raises(UserError, match="no model 'adapter'. It has: base. Set"):
        far.answer("What is this?", [picture("red")])
    assert far.answer("Hello?").text == "All is well."


@pytest.mark.slow
def test_a_server_that_is_down_or_somewhere_else_is_one_sentence(server: ChatServer) -> None:
    with pytest.raises(UserError, match="cannot be reached.*VLM_REMOTE is its address"):
        assistant_at(f"http://127.0.0.1:{free_port()}/v1").answer("Hello?")
    with pytest.raises(UserError, match="OpenAI-compatible.*ends in /v1"):
        assistant_at(server.address.removesuffix("/v1")).answer("Hello?")
    for wrong in ("127.0.0.1:8000", "ftp://127.0.0.1/v1", "http://"):
        with pytest.raises(UserError, match="VLM_REMOTE must be an address such as"):
            RemoteServer(wrong)


def test_warming_up_says_in_the_log_what_the_server_lacks(
    server: ChatServer, far: Assistant, caplog: pytest.LogCaptureFixture
) -> None:
    def said() -> list[str]:
        return [each.message for each in caplog.records if each.name.startswith("vlm")]

    list(far.warm_up())
    assert not said()
    server.models.remove("adapter")
    list(far.warm_up())
    list(assistant_at(f"http://127.0.0.1:{free_port()}/v1").warm_up())
    first, second = said()
    assert "no model 'adapter', only: base" in first
    assert "cannot be reached" in second


@pytest.mark.parametrize(
    "body",
    [
        error("This model's maximum context length is 4096 tokens. However, you requested 5000", "", 400),
        error("the request exceeds the available context size", "exceed_context_size_error", 400),
        error("`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000", "validation", 422),
    ],
)
def test_older_turns_are_left_out_where_all_do_not_fit(
    server: ChatServer, far: Assistant, body: dict
) -> None:
    history = [
        Turn("What?", "A cup.", (picture("red"),)),
        *(Turn(f"Question {number}?", "Yes.") for number in range(5)),
    ]
    refused = refuses(body["error"]["code"], body)
    server.answers.extend([refused, refused])
    answer = far.answer("And now?", history=history, settings=Settings(clean_up=False))
    assert answer.left_out == 5
    kept = server.asked[-1]["messages"][1:]
    assert [part["type"] for part in kept[0]["content"]] == ["image_url", "text"]  # the picture stays
    assert kept[0]["content"][-1]["text"] == "Question 4?"
    server.answers.append(refused)
    with pytest.raises(UserError, match="do not fit.*shorten the question"):
        far.answer("And now?")


def test_answers_under_way_together_do_not_mix(server: ChatServer, far: Assistant) -> None:
    server.otherwise = echoes
    questions = [f"Word {number * 7919}?" for number in range(24)]
    with ThreadPoolExecutor(len(questions)) as pool:
        assert [each.text for each in pool.map(far.answer, questions)] == questions


def test_the_evaluation_asks_a_server_as_any_other_engine(
    server: ChatServer, far: Assistant, tmp_path: Path
) -> None:
    def colour(handler: object, body: dict) -> None:
        content = body["messages"][-1]["content"]
        if isinstance(content, str):
            return says("Yes.")(handler, body)  # type: ignore[arg-type]
        sent = base64.b64decode(content[0]["image_url"]["url"].partition(",")[2])
        middle = Image.open(BytesIO(sent)).convert("RGB").getpixel((8, 8))
        names = {(255, 0, 0): "red", (0, 0, 255): "blue", (0, 255, 0): "lime"}
        near = min(names, key=lambda known: sum(abs(a - b) for a, b in zip(known, middle, strict=True)))
        return says(f"A {names[near]}.")(handler, body)  # type: ignore[arg-type]

    server.otherwise = colour
    result = result_of(far, write_colours(tmp_path / "data"), task="name")  # type: ignore[arg-type]
    assert result["accuracy"]["right"] == len(COLOURS)


def test_the_preset_names_the_server_and_loads_no_model(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm.chat.assistant._load_transcriber", lambda _: Hearing())
    monkeypatch.setattr("vlm.chat.assistant.build_engine", lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.delenv("VLM_REMOTE", raising=False)
    with pytest.raises(UserError, match="set VLM_REMOTE to its address"):
        load_assistant("remote")
    monkeypatch.setenv("VLM_REMOTE", server.address)
    server.models.append("mine")
    assistant = load_assistant("remote", "mine")
    host = server.address.removeprefix("http://").removesuffix("/v1")
    assert assistant.description == f"base · adapter mine · remote · {host}"
    assert assistant.answer("What is this?", [EXAMPLES / "cat.jpg"]).adapter == "mine"
    assistant.close()


@pytest.mark.slow
def test_a_page_that_asks_a_server_is_a_page_like_any_other(server: ChatServer, far: Assistant) -> None:
    from gradio_client import Client, handle_file

    from tests.conftest import served
    from vlm.model.about import about
    from vlm.serving.page import views_of
    from vlm.serving.serving import Serving

    assert "| adapter, for pictures | adapter |" in about(CONFIG, None)
    assert views_of(far)[2].visible is False  # it can see
    with served(Serving(far)) as address:
        client = Client(address, verbose=False)
        assert client.predict("Hello?", api_name="/text")[0] == "All is well."
        shown = [handle_file(EXAMPLES / "cat.jpg")]
        assert client.predict("What is this?", shown, api_name="/image")[1]["adapter"] == "adapter"


@pytest.mark.slow
def test_a_real_model_behind_llama_cpps_own_server_answers() -> None:
    with llama_server(gguf_file("qwen2.5-coder-1.5b-instruct")) as address:
        ask_a_real_model(assistant_at(address, silence=120))


def ask_a_real_model(assistant: Assistant) -> None:
    before = set(threading.enumerate())
    assert sorted(assistant.engine.models()) == ["adapter", "base"]  # type: ignore[attr-defined]
    snapshots = list(assistant.stream("What is the capital of France?", settings=Settings(24)))
    last = snapshots[-1]
    assert "Paris" in last.text
    assert len({each.text for each in snapshots}) > 3  # it streams
    assert last.ended and 20 < last.prompt_tokens < 60 and 2 < last.tokens <= 24
    again = assistant.answer(
        "Count from one to a hundred.", history=[Turn("My word is plum.", "Fine.")], settings=Settings(4)
    )
    assert (again.ended, again.tokens) == (False, 4)
    with closing(assistant.stream("Count to a thousand.", settings=Settings(1000))) as stopped:
        assert next(stopped)
    with pytest.raises(UserError, match="image input is not supported"):  # it was given no eyes
        assistant.answer("What is this?", [picture("red")])
    with ThreadPoolExecutor(2) as pool:
        words = ["plum", "walnut"]
        told = pool.map(
            lambda word: assistant.answer(f"Say only the word {word}.", settings=Settings(8)), words
        )
        assert [word in each.text.lower() for word, each in zip(words, told, strict=True)] == [True, True]
    assistant.close()
    wait_until(lambda: not [each for each in set(threading.enumerate()) - before if each.name == "remote"])


@pytest.mark.slow
def test_llama_cpps_own_server_sees_the_picture_that_is_sent(tmp_path: Path) -> None:
    """And says of it what the torch engine says of the same JPEG."""
    adapter = save_tiny_adapter(tmp_path, "qwen2")
    files = export_adapter(str(adapter), MERGED, tmp_path / "merged")
    shown = pictures(1)[0].filter(ImageFilter.GaussianBlur(2))
    sent = as_jpeg(shown, JPEG_QUALITY)
    certain = Certain(torch_model(adapter), picture=Image.open(BytesIO(sent)))
    with llama_server(language_file(files), next(files.glob("mmproj-*.gguf"))) as address:
        writer = RemoteWriter(RemoteServer(address, "", 60), "base", "adapter")
        sights = [writer.look([shown], certain.question)]
        settings = Settings(LENGTH, temperature=0.0, repetition_penalty=1.0)
        *_, last = writer.write([PromptTurn(certain.question)], sights, None, settings)
        writer.engine.close()
    assert last and last.text == certain.answer


def test_what_is_shipped_for_vllm_names_models_and_variables_as_the_page_does() -> None:
    config = load_model_config("remote")
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    guide = (ROOT / "deploy" / "vllm.md").read_text()
    for command in (services["server"]["command"], guide):
        assert f"--served-model-name {config.language.weights}" in command
        assert f"--lora-modules {config.adapter}=" in command
        assert f"--limit-mm-per-prompt '{{\"image\": {MAX_PICTURES}}}'" in command
    page = services["page"]["environment"]
    assert page["VLM_PRESET"] == config.name
    assert {ADDRESS, KEY} <= set(page)
    assert all(port.startswith("127.0.0.1:") for port in services["page"]["ports"])
    assert "ports" not in services["server"]  # only the page reaches it
