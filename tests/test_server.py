"""A server among strangers: who is let in, how much is taken in, whose turn it is, and what happens when they go."""

import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from tests.conftest import EXAMPLES, ROOT, served
from tests.talking import FakeAssistant, TalkingAssistant
from tests.test_serving import Running, answered, fake_serving, reads_ahead, wait_until
from vlm import Answer, Settings, UserError
from vlm.chat.answer import Turn
from vlm.serving import callers, uploads
from vlm.serving.accounts import Accounts, account_line, hash_password, read_accounts
from vlm.serving.arguments import data_of, number_of
from vlm.serving.body import ValueCount
from vlm.serving.callers import CALLER, Caller
from vlm.serving.environment import ServerSettings, read_environment
from vlm.serving.gate import Gate
from vlm.serving.guard import person_at
from vlm.serving.limits import Limit, NotNow, TryLater, duration
from vlm.serving.openai.errors import api_error
from vlm.serving.serving import Serving
from vlm.serving.uploads import Uploads, own_uploads

pytestmark = pytest.mark.server

CAT = EXAMPLES / "cat.jpg"
PUBLIC = ServerSettings(auth="set")  # a public server, which still listens on this machine only


def talking(settings: ServerSettings | None = None, **options: Any) -> tuple[TalkingAssistant, Serving]:
    assistant = TalkingAssistant(**options)
    return assistant, Serving(assistant, replace(settings or ServerSettings(), preset="one"))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A page whose answers are there at once."""
    _, serving = talking(words=2, seconds=0.0)
    with served(serving) as address:
        yield address


def call(address: str, endpoint: str, data: Any, **options: Any) -> httpx.Response:
    content = json.dumps({"data": data})
    headers = {"Content-Type": "application/json"} | options.pop("headers", {})
    return httpx.post(f"{address}gradio_api/call/{endpoint}", content=content, headers=headers, **options)


def reason(address: str, endpoint: str, data: Any) -> str:
    """The error that a call ends with."""
    event = call(address, endpoint, data).json()["event_id"]
    lines = httpx.get(f"{address}gradio_api/call/{endpoint}/{event}", timeout=30).text.splitlines()
    assert "event: error" in lines, lines
    return json.loads(lines[lines.index("event: error") + 1].removeprefix("data: "))["error"]


DEFAULTS = [
    getattr(Settings(), name) for name in ("max_new_tokens", "temperature", "style", "top_p", "min_p")
]
DEFAULTS += [Settings().repetition_penalty, Settings().seed]


def text_with(**changes: Any) -> list[Any]:
    names = [
        "question",
        "max_new_tokens",
        "temperature",
        "style",
        "top_p",
        "min_p",
        "repetition_penalty",
        "seed",
    ]
    return list((dict(zip(names, ["Hello?", *DEFAULTS], strict=True)) | changes).values())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (text_with(question=3), "question must be text"),
        (text_with(question={"a": [1]}), "question must be text"),
        (text_with(question="\ud800"), "lone surrogate"),
        (text_with(temperature=float("nan")), "temperature must be a number"),
        (text_with(top_p="much"), "top_p must be a number"),
        (text_with(seed="one"), "seed must be a number"),
        (text_with(seed=1.5), "seed must be a whole number"),
        (text_with(max_new_tokens=True), "max_new_tokens must be a number"),
        (text_with(max_new_tokens=float("inf")), "max_new_tokens must be a number"),
        (text_with(max_new_tokens=99_999), "between 1 and 1024"),
        (text_with(style=["full"]), "full or keywords"),
        (["Hello?"], "/text takes 8 values, and 1 came"),
    ],
)
def test_whatever_is_wrong_with_a_call_its_error_says_so(address: str, data: list[Any], said: str) -> None:
    assert said in reason(address, "text", data)


def test_an_endpoint_that_there_is_not_is_404(address: str) -> None:
    answered = call(address, "nothing", [])
    assert answered.status_code == 404
    assert "no endpoint" in answered.json()["error"]


@pytest.mark.parametrize(
    ("pictures", "said"),
    [
        (None, "at least one picture"),
        ([], "at least one picture"),
        (7, "must be a file"),
        ([{"no": "path"}], "must be a file"),
        (["https://example.com/cat.jpg"], "not fetched from other addresses"),
        ([{"path": "https://example.com/a.jpg", "meta": {"_type": "gradio.FileData"}}], "not fetched"),
        (["/etc/passwd"], "not here, or no longer"),
        ([{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}], "not uploaded"),
        (["http://127.0.0.1/gradio_api/file=/etc/passwd"], "not here, or no longer"),
        (["\x00"], "not here, or no longer"),
        (["data:image/png;base64,!"], "no base64 data"),
        (["data:image/png,abc"], "not a data URL"),
        (["x"] * 9, "at most 8 files, not 9"),
    ],
)
def test_what_is_no_picture_is_refused_with_a_reason(address: str, pictures: Any, said: str) -> None:
    defaults = [Settings().max_new_tokens, Settings().temperature, True, *DEFAULTS[2:]]
    assert said in reason(address, "image", ["What is this?", pictures, None, *defaults])


def test_what_is_too_large_is_not_decoded() -> None:
    assert data_of("data:image/png;base64,AAE\nC", "It", 3) == bytes(range(3))
    with pytest.raises(UserError, match="It is larger than 1 MB"):
        data_of("data:;base64," + "!" * 2**21, "It", 2**20)


def test_one_file_will_do_in_place_of_a_list(address: str) -> None:
    client = Client(address, verbose=False)
    for sent in (handle_file(CAT), [handle_file(CAT)]):
        answer, trace = client.predict("What is this?", sent, api_name="/image")
        assert (answer, trace["stage"]) == ("done", "done")


# Who is let in.


@pytest.mark.parametrize(
    ("host", "status"),
    [("evil.example", 403), ("evil.example:7860", 403), ("127.0.0.1.evil.example", 403), ("", 403), ("[::1]", 200),
     ("localhost:1", 200), ("10.0.0.1", 403)],
)  # fmt: skip
def test_a_name_that_a_stranger_pointed_here_is_not_served(address: str, host: str, status: int) -> None:
    for path in ("", "config", "health", "gradio_api/info"):
        assert httpx.get(f"{address}{path}", headers={"Host": host}).status_code == status, path


def test_pages_of_other_sites_can_neither_upload_nor_ask(address: str) -> None:
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "http://[x"):
        sent = httpx.post(
            f"{address}gradio_api/upload", files={"files": CAT.read_bytes()}, headers={"Origin": origin}
        )
        assert sent.status_code == 403, origin
        assert call(address, "text", text_with(), headers={"Origin": origin}).status_code == 403
    assert call(address, "text", text_with(), headers={"Origin": address.rstrip("/")}).status_code == 200


def test_hosts_are_added_by_name() -> None:
    _, serving = talking(ServerSettings(allowed_hosts=("mine.example",)), words=1)
    with served(serving) as address:
        assert httpx.get(f"{address}health", headers={"Host": "mine.example"}).status_code == 200
        allowed = {"Origin": "https://mine.example"}  # behind a proxy the host is another one
        assert call(address, "text", text_with(), headers=allowed).status_code == 200


def test_browsers_are_told_to_be_careful(address: str) -> None:
    for path in ("", "config", "health", "nothing-here"):
        headers = httpx.get(f"{address}{path}").headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'self'" in headers["Content-Security-Policy"]
        assert "microphone=(self)" in headers["Permissions-Policy"]


@pytest.mark.parametrize(
    "path", ["monitoring", "gradio_api/deep_link", "gradio_api/proxy=https://a.hf.space/", "gradio_api/file=http://a.example/",
     "gradio_api/file/http://a.example/", "gradio_api/file/https://a.example/x.png"]
)  # fmt: skip
def test_what_gradio_has_besides_and_nobody_needs_is_closed(address: str, path: str) -> None:
    assert httpx.get(f"{address}{path}").status_code == 404


def test_the_page_does_not_tell_where_on_the_machine_it_is(address: str) -> None:
    config = httpx.get(f"{address}config").text
    assert str(ROOT) not in config
    example = re.search(r"gradio_api/file=[^\"]*cat\.jpg", config)
    assert example
    assert httpx.get(f"{address}{example[0]}").content == CAT.read_bytes()


# How much is taken in.


def test_a_body_that_is_too_large_is_refused_before_it_is_in_memory(address: str) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"data": ["'
        for _ in range(200):
            yield b"x" * 2**20

    for content in (b"x" * (33 * 2**20), pieces()):
        # a server that refuses a body closes the connection, which may be seen before its answer is
        with suppress(httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadError):
            refused = httpx.post(f"{address}gradio_api/call/text", content=content, timeout=30)
            assert refused.status_code == 413
            assert "At most 32 MB" in refused.json()["error"]
    many = b'{"data": [' + b"[]," * 200_000 + b"0]}"
    assert httpx.post(f"{address}gradio_api/call/text", content=many).status_code == 413


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_commas_within_texts_are_no_values(size: int) -> None:
    texts = ['a,b,"c,', "\\", '\\"', "[,{,", ""]
    for values, least in (({"data": [*texts, {"more": texts}, 1, None]}, 15), ("[]," * 5, 0)):
        body = json.dumps(values).encode()
        count, wide = ValueCount(), ValueCount()
        for start in range(0, len(body), size):
            count.add(body[start : start + size])
            wide.add(body[start : start + size].decode().encode("utf-16-le"))
        assert count.total == least
        assert wide.total == sum(map(body.count, (b",", b"[", b"{")))


def test_a_request_and_the_folder_hold_only_so_much(tmp_path: Path) -> None:
    _, serving = talking(ServerSettings(request_mb=2, allowed_hosts=("localhost",)), words=1)
    folder = Uploads(tmp_path, 3 * 2**20)

    def send(megabytes: float) -> httpx.Response:
        files = [("files", (f"{number}.bin", b"x" * 2**18)) for number in range(int(megabytes * 4))]
        return httpx.post(f"{address}gradio_api/upload", files=files)

    with served(serving, uploads=folder) as address:
        refused = send(3)
        assert (refused.status_code, refused.text) == (413, "At most 2 MB can be sent at once.")
        assert send(1).status_code == 200
        (tmp_path / "held").write_bytes(b"x" * (5 * 2**19))
        folder._measured = -10.0
        refused = send(1)
        assert refused.status_code == 507
        assert "no room for more files now" in refused.text

        def pieces() -> Iterator[bytes]:
            yield b"x"

        sent = httpx.post(f"{address}gradio_api/upload", content=pieces())
        assert sent.status_code == 411


def test_a_body_that_stops_coming_is_given_up_and_its_room_is_free_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm.serving.body.SILENT_SECONDS", 0.2)
    _, serving = talking(words=1)
    folder = Uploads(tmp_path, 3 * 2**20)
    with served(serving, uploads=folder) as address:
        port = int(address.rstrip("/").rpartition(":")[2])
        for path in ("gradio_api/call/text", "v1/files"):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                kind = "multipart/form-data; boundary=b" if path == "v1/files" else "application/json"
                head = f"POST /{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
                connection.sendall(f"{head}Content-Length: {2**21}\r\n\r\n--b".encode())
                wait_until(lambda: folder.size() >= 2**21, 5)
                assert connection.recv(1000).startswith(b"HTTP/1.1 408"), path
            folder._measured = -10.0
            wait_until(lambda: folder.size() == 0, 5)


def test_what_did_not_come_is_not_counted_and_nobody_takes_the_room_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm.serving.guard.SHARES", 40)
    limits = ServerSettings(request_mb=64, uploads_mb=200, allowed_hosts=("localhost",))
    _, serving = talking(limits, words=1)

    def pieces() -> Iterator[bytes]:
        yield json.dumps({"data": text_with()}).encode()

    kind = {"Content-Type": "application/json"}
    with served(serving, uploads=Uploads(tmp_path, 200 * 2**20)) as address:
        for _ in range(4):  # programs that do not say how much comes: it could be 32 MB each time
            sent = httpx.post(f"{address}gradio_api/call/text", content=pieces(), headers=kind)
            assert sent.status_code == 200
        files = {"files": b"x" * (3 * 2**20)}
        sent, again, refused = (httpx.post(f"{address}gradio_api/upload", files=files) for _ in range(3))
        assert (sent.status_code, again.status_code, refused.status_code) == (200, 200, 429)
        assert "One person can send 5 MB of files in 4 hours here" in refused.text


def test_a_question_about_pictures_leaves_no_empty_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    _, serving = talking(words=1)
    with served(serving) as address:
        client = Client(address, verbose=False)
        for _ in range(3):
            client.predict("What is this?", [handle_file(CAT)] * 2, api_name="/image")
        found = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert found
        assert all(path.stat().st_size for path in found)
        refused = call(
            address,
            "image",
            ["?", [{"path": f"/{n}", "meta": {"_type": "gradio.FileData"}} for n in range(50_000)]],
        )
        assert refused.status_code == 413
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == found


def test_the_folder_of_a_server_that_was_killed_goes_and_that_of_a_running_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    with own_uploads(tmp_path, 10) as running:
        (running.folder / "picture").write_bytes(b"x" * 11)
        orphan = tmp_path / "uploads-killed"
        orphan.mkdir()
        (orphan / "picture").write_bytes(b"x")
        (tmp_path / "uploads-gone.lock").touch()  # killed between its folder and its lock
        with own_uploads(tmp_path, 10) as second:
            assert not orphan.exists() and not (tmp_path / "uploads-gone.lock").exists()
            assert (running.folder / "picture").exists()
            assert second.folder != running.folder
        assert not second.folder.exists()
        assert running.size() == 11
        running.sweep()
        assert (running.folder / "picture").exists()
        os.utime(running.folder / "picture", (0, 0))
        running.sweep()
        assert not (running.folder / "picture").exists()
    assert not list(tmp_path.iterdir())


# Nobody holds the model in vain.


def test_an_api_client_that_goes_away_frees_the_model() -> None:
    assistant, serving = talking()
    with served(serving) as address:
        event = call(address, "text", text_with()).json()["event_id"]
        with httpx.stream("GET", f"{address}gradio_api/call/text/{event}") as reading:
            next(reading.iter_lines())
            wait_until(lambda: assistant.said > 2, 20)
        wait_until(lambda: not assistant.under_way, 5)
        said = assistant.said
        time.sleep(0.3)
        assert assistant.said == said


def test_a_job_that_is_cancelled_frees_the_model() -> None:
    assistant, serving = talking()
    with served(serving) as address:
        job = Client(address, verbose=False).submit("Hello?", api_name="/text")
        wait_until(lambda: assistant.said > 2, 20)
        job.cancel()
        wait_until(lambda: not assistant.under_way, 5)


def test_a_question_whose_answer_nobody_reads_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "GRACE_SECONDS", 1.0)
    assistant, serving = talking()
    with served(serving) as address:
        client = Client(address, verbose=False)
        listened_to = client.submit("Hello?", api_name="/text")
        wait_until(lambda: assistant.said > 0, 20)
        for _ in range(5):
            assert call(address, "text", text_with()).status_code == 200
        wait_until(lambda: serving.waiting > 0, 10)
        wait_until(lambda: serving.waiting == 0, 10)
        assert len(assistant.asked) == len(assistant.under_way) == 1
        listened_to.cancel()


# Whose turn it is.


@contextmanager
def calling(person: str) -> Iterator[None]:
    token = CALLER.set(Caller(person))
    try:
        yield
    finally:
        CALLER.reset(token)


def test_turns_go_round_between_people() -> None:
    gate = Gate(lambda: 1)
    tickets = [gate.line_up(person) for person in ("ann", "ann", "ann", "bob", "cy", "bob")]
    order = []
    while tickets:
        entered = next(each for each in tickets if gate.enter(each, 0))
        order.append(entered.person)
        tickets.remove(entered)
        gate.leave(entered)
    assert order == ["ann", "bob", "cy", "ann", "bob", "ann"]


def test_a_question_that_is_given_up_before_its_turn_costs_no_round() -> None:
    gate = Gate(lambda: 1)
    for _ in range(3):
        gate.leave(gate.line_up("ann"))
    first, bobs, second = gate.line_up("ann"), [gate.line_up("bob") for _ in range(2)], gate.line_up("ann")
    assert gate._order() == [first, bobs[0], bobs[1], second]
    gate.leave(first)
    assert gate._order() == [bobs[0], second, bobs[1]]


def test_whoever_has_answers_under_way_comes_after_those_who_have_none() -> None:
    gate = Gate(lambda: 2)
    first = gate.line_up("ann")
    assert gate.enter(first, 0)
    second, other = gate.line_up("ann"), gate.line_up("bob")
    assert not gate.enter(second, 0)
    assert gate.enter(other, 0)


def test_reading_ahead_ends_when_anyone_asks_goes_on_afterwards_and_counts_as_no_answer() -> None:
    assistant, serving = talking(parallel=8, seconds=0.0, words=3)
    each = serving.seconds_a_question
    serving.read_ahead("ann", ["a.png"], list)
    wait_until(lambda: assistant.under_way == [(["a.png"], [])])
    with closing(serving.stream("Hello?")) as question:
        next(question)
        wait_until(lambda: len(assistant.under_way) == 1)  # the question
        serving.read_ahead("bob", ["b.png"], lambda: [Turn("Hello?", "word")])  # waits: somebody is here
        assert next(question).tokens == 1 and len(assistant.under_way) == 1
    asked = serving.seconds_a_question
    assert asked != each
    wait_until(lambda: assistant.under_way == [(["b.png"], [Turn("Hello?", "word")])])  # the latest first
    assert serving.answering == serving.waiting == 0
    serving.no_more_ahead("bob")
    wait_until(lambda: assistant.under_way == [(["a.png"], [])])
    assistant.go_on.set()
    wait_until(lambda: not reads_ahead(serving))
    assert serving.seconds_a_question == asked and not assistant.under_way


def test_newer_pictures_take_the_place_of_those_before_and_none_is_waited_for_too_long() -> None:
    assistant, serving = talking()
    serving.read_ahead("ann", ["a.png"], list)
    wait_until(lambda: assistant.under_way == [(["a.png"], [])])
    serving.read_ahead("ann", ["a.png", "b.png"], list)
    wait_until(lambda: assistant.under_way == [(["a.png", "b.png"], [])])
    assistant.go_on.set()
    wait_until(lambda: not reads_ahead(serving))
    with closing(serving.stream("Hello?")) as question:
        next(question)
        serving._ahead.wish("ann", lambda assistant: assistant.read_ahead(), seconds=0.1)
        wait_until(lambda: not reads_ahead(serving))
    assert not serving._ahead._wishes


def test_what_fails_while_it_is_read_ahead_is_written_to_the_log_and_holds_up_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assistant, serving = talking(words=1)

    def broken(*_: Any) -> Iterator[None]:
        raise RuntimeError("a layer is gone")
        yield

    serving._ahead.wish("ann", broken)
    wait_until(lambda: not reads_ahead(serving))
    assert "a layer is gone" in caplog.text and "answered without it" in caplog.text
    assert answered(serving, "Hello?").text == "done"


def test_on_a_public_server_a_person_can_have_so_many_pictures_read_ahead_and_still_ask_about_them() -> None:
    limited = {"pictures_a_minute": 2}
    assistant, public = talking(replace(PUBLIC, **limited), words=1, seconds=0.0)
    assistant.go_on.set()
    public.read_ahead("ann", ["a.png", "b.png"], list)
    with pytest.raises(TryLater):
        public.read_ahead("ann", ["a.png"], list)
    assert answered(public, "What?", ["a.png", "b.png"]).text == "done"


def test_warming_up_makes_room_for_whoever_asks_and_goes_on_afterwards() -> None:
    assistant, serving = talking(parallel=1, seconds=0.0, words=3)
    serving.warm_up()
    wait_until(lambda: assistant.under_way == [()])
    *_, last = serving.stream("Hello?")
    assert last.text == "done" and reads_ahead(serving)
    wait_until(lambda: assistant.under_way == [()])
    assistant.go_on.set()
    wait_until(lambda: not reads_ahead(serving))
    assert serving.answering == 0


def test_whoever_does_not_come_when_it_is_their_turn_holds_up_nobody() -> None:
    gate = Gate(lambda: 1)
    gone, here = gate.line_up("ann"), gate.line_up("bob")
    gone.asked -= 60
    assert gate.enter(here, 0)
    assert gate.waiting == 1


def test_a_change_of_the_model_is_not_overtaken() -> None:
    gate = Gate(lambda: 8)
    inside = gate.line_up("ann")
    assert gate.enter(inside, 0)
    changed = threading.Event()

    def change() -> None:
        with gate.alone():
            changed.set()

    changing = Running(change)
    wait_until(lambda: gate.waiting == 1)
    late = gate.line_up("new")
    assert not gate.enter(late, 0)
    assert not changed.is_set()
    gate.leave(inside)
    changing.result()
    assert changed.is_set()
    assert gate.enter(late, 1)


def test_one_person_has_two_questions_waiting_at_most_and_all_together_so_many() -> None:
    gate = Gate(lambda: 1)
    for _ in range(2):
        gate.line_up("ann", 3, 2)
    with pytest.raises(TryLater, match="You have 2 questions waiting here.*try again in"):
        gate.line_up("ann", 3, 2)
    gate.line_up("bob", 3, 2)
    with pytest.raises(TryLater, match="queue is full: 3 questions are waiting.*try again in") as full:
        gate.line_up("cy", 3, 2)
    assert full.value.seconds > 1


def test_a_limit_says_when_to_come_back_and_then_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("vlm.serving.limits.time.monotonic", lambda: now[0])
    limit = Limit("questions", 6)
    for _ in range(6):
        limit.take("ann")
    with pytest.raises(TryLater, match="6 questions a minute here. Please try again in 10 seconds"):
        limit.take("ann")
    limit.take("bob")
    now[0] += 10
    limit.take("ann")
    limit.charge("ann", 30)
    with pytest.raises(TryLater, match="in 6 minutes|in 5 minutes|in 310 seconds"):
        limit.check("ann")


def test_lengths_of_time_are_told_as_people_tell_them() -> None:
    assert [duration(each) for each in (0.2, 1, 59.1, 90, 91, 600)] == [
        "1 second", "1 second", "60 seconds", "90 seconds", "2 minutes", "10 minutes",
    ]  # fmt: skip


def test_on_a_public_server_a_person_reaches_the_limits_and_on_ones_own_machine_nobody() -> None:
    limited = {"questions_a_minute": 3, "pictures_a_minute": 2}
    _, public = talking(replace(PUBLIC, **limited), words=1, seconds=0.0)
    with calling("ann"):
        for _ in range(3):
            answered(public, "Hello?")
        with pytest.raises(TryLater, match="3 questions a minute"):
            answered(public, "Hello?")
    with calling("bob"):
        answered(public, "What?", ["a.png", "b.png"])
        with pytest.raises(TryLater, match="2 pictures a minute"):
            answered(public, "What?", ["a.png"])
    _, own = talking(ServerSettings(**limited), words=1, seconds=0.0)
    for _ in range(10):
        answered(own, "What?", ["a.png"])


def test_a_long_recording_takes_no_place_of_the_model_and_is_counted() -> None:
    assistant, serving = talking(replace(PUBLIC, speech_seconds_a_minute=300), words=1, seconds=0.0)

    def ask_by_voice() -> Answer:
        with calling("ann"):
            return answered(serving, "", (), "ten-minutes.wav")

    speaking = Running(ask_by_voice)
    wait_until(lambda: serving.answering == 1)
    with calling("bob"):
        assert answered(serving, "Hello?").text == "done"  # while it is still listened to
    assistant.go_on.set()
    assert speaking.result().text == "done"
    assert assistant.asked[-1][2].text == "What is this?"
    with calling("ann"), pytest.raises(TryLater, match="300 seconds of speech a minute"):
        answered(serving, "", (), "again.wav")


@pytest.mark.slow
def test_several_people_at_once_get_their_own_answers_and_the_wait_is_told() -> None:
    _, serving = talking(words=10, parallel=1, seconds=0.1)
    with served(serving) as address:
        jobs = [
            client.submit("Hello?", api_name="/text")
            for client in [Client(address, verbose=False) for _ in range(3)]
        ]
        assert [job.result(timeout=60)[0] for job in jobs] == ["done"] * 3
        stages = [trace["stage"] for job in jobs for _, trace in job.outputs()]
        assert "waiting" in stages
        told_waits = [
            trace["seconds"]["wait"]
            for job in jobs
            for _, trace in job.outputs()
            if trace["stage"] == "waiting"
        ]
        assert all(0 < each < 60 for each in told_waits)


def test_calls_of_the_api_leave_nothing_behind() -> None:
    _, serving = talking(words=1, seconds=0.0)
    kept: list[Any] = []
    with served(serving, on_start=kept.append) as address:
        (page,) = kept
        for _ in range(5):
            event = call(address, "text", text_with()).json()["event_id"]
            assert "done" in httpx.get(f"{address}gradio_api/call/text/{event}", timeout=30).text
        client = Client(address, verbose=False)
        assert client.predict("Hello?", api_name="/text")[0] == "done"
        wait_until(lambda: not page.state_holder.session_data, 20)


# Names and passwords.


def test_with_accounts_only_those_who_know_a_password_are_let_in(tmp_path: Path) -> None:
    hashes = tmp_path / "accounts"
    hashes.write_text(f"# ours\nann:{hash_password('secret:word')}\n\nbob:{hash_password('other')}\n")
    _, serving = talking(replace(PUBLIC, tools=False), words=1, seconds=0.0)
    with served(serving, accounts=read_accounts(str(hashes)), switchable=False) as address:
        for path in ("", "config", "metrics", "gradio_api/info", "assets/index.js"):
            refused = httpx.get(f"{address}{path}")
            assert refused.status_code == 401, path
            assert refused.headers["WWW-Authenticate"].startswith("Basic")
        assert httpx.get(f"{address}health").status_code == 200
        assert httpx.get(f"{address}config", auth=("ann", "other")).status_code == 401
        assert httpx.get(f"{address}config", auth=("ann", "secret:word")).status_code == 200
        assert httpx.get(f"{address}config", headers={"Authorization": "Bearer bob:other"}).status_code == 200
        client = Client(address, verbose=False, httpx_kwargs={"auth": ("bob", "other")})
        assert client.predict("Hello?", api_name="/text")[0] == "done"


def test_guessing_passwords_is_slow() -> None:
    accounts = Accounts({"ann": hash_password("right")})
    for number in range(10):
        assert accounts.user(f"Bearer ann:{number}", "1.2.3.4") is None
    with pytest.raises(TryLater, match="wrong passwords"):
        accounts.user("Bearer ann:right", "1.2.3.4")
    assert accounts.user("Bearer ann:right", "5.6.7.8") == "ann"
    assert accounts.user("Bearer ann:right", "1.2.3.4") == "ann"  # known by now


@pytest.mark.parametrize("given", ["ann:", ":secret", "no/such/file", "x" * 5000])
def test_accounts_that_cannot_be_read_are_a_sentence(given: str) -> None:
    with pytest.raises(UserError, match="AUTH"):
        read_accounts(given)


def test_a_password_of_any_length_is_one_and_a_key_in_place_of_its_file_is_not_shown() -> None:
    assert read_accounts("ann:" + "x" * 5000).user("Bearer ann:" + "x" * 5000, "1.2.3.4") == "ann"
    key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEI\n-----END PRIVATE KEY-----"
    with pytest.raises(UserError, match="TLS_KEY must be the path of a file") as told:
        read_environment({"TLS_CERTIFICATE": "/etc/hostname", "TLS_KEY": key})
    assert "PRIVATE" not in str(told.value)


@pytest.mark.parametrize(
    "name, password", [("", "secret"), ("ann", ""), ("ann:x", "secret"), ("#ann", "secret")]
)
def test_no_line_is_made_for_an_account_that_could_not_be_used(name: str, password: str) -> None:
    with pytest.raises(UserError, match="Please give a name, without a colon"):
        account_line(name, password)


def test_a_line_that_is_no_hash_is_named(tmp_path: Path) -> None:
    file = tmp_path / "accounts"
    file.write_text("ann:secret\n")
    with pytest.raises(UserError, match="Line 1 of the file"):
        read_accounts(str(file))


# What is set, and what is told.


def test_the_environment_is_read_or_refused() -> None:
    assert read_environment({}) == ServerSettings()
    assert not ServerSettings().public
    read = read_environment(
        {"HOST": "0.0.0.0", "PORT": "80", "ALLOWED_HOSTS": "a.example, B.example", "MCP": "true"}
    )
    assert (read.host, read.port, read.allowed_hosts, read.tools) == (
        "0.0.0.0",
        80,
        ("a.example", "b.example"),
        True,
    )
    assert read.public
    assert read_environment({"AUTH": "ann:secret"}).public
    assert read_environment({"FORWARDED_ALLOW_IPS": "10.0.0.0/8, ::1"}) == read_environment(
        {"FORWARDED_ALLOW_IPS": "*"}
    )
    space = read_environment(
        {"SPACE_ID": "a/b", "GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SERVER_PORT": "7861"}
    )
    assert (space.public, space.allowed_hosts, space.port) == (True, ("*",), 7861)
    for wrong in (
        {"PORT": "http"},
        {"PORT": "0"},
        {"MCP": "maybe"},
        {"HOST": "http://a"},
        {"MAX_WAITING": "-1"},
        {"FORWARDED_ALLOW_IPS": "127.0.0.1, proxy"},
        {"FORWARDED_ALLOW_IPS": "10.0.0.1/8"},
    ):
        with pytest.raises(UserError, match=next(iter(wrong))):
            read_environment(wrong)


def test_on_a_public_server_nobody_can_switch_the_preset_or_sees_how() -> None:
    _, serving = talking(PUBLIC, words=1)
    with served(serving, switchable=not serving.settings.public) as address:
        config = httpx.get(f"{address}config").json()
        assert not [each for each in config["components"] if each["props"].get("label") == "Preset"]
        assert "switch" not in {each["api_name"] for each in config["dependencies"]}


def test_health_and_metrics_tell_how_it_goes_and_nothing_of_what_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, serving = talking(words=5, seconds=0.0)
    with served(serving) as address, caplog.at_level("INFO"):
        Client(address, verbose=False).predict("a secret question", api_name="/text")
        metrics = httpx.get(f"{address}metrics").text
        assert 'vlm_questions_total{route="text",ended="answered"} 1' in metrics
        assert "vlm_tokens_total 5" in metrics
        shown = [Turn("Which?", "A cat.", (EXAMPLES / "cat.jpg",))]
        answered(serving, "And what is it used for?", (), None, shown)
        assert 'vlm_questions_total{route="image",ended="answered"} 1' in httpx.get(f"{address}metrics").text
        for line in metrics.splitlines():
            assert line.startswith("# TYPE ") or float(line.rsplit(" ", 1)[1]) >= 0
        assert httpx.get(f"{address}health").json() == {"status": "ok", "preset": "one"}
        serving.model.preset = "/of/the/server/mine.yaml"
        assert httpx.get(f"{address}health").json()["preset"] == "mine.yaml"
        serving.stop()
        stopped = httpx.get(f"{address}health")
        assert (stopped.status_code, stopped.json()["status"]) == (503, "busy")
        with pytest.raises(AppError, match="being stopped"):
            Client(address, verbose=False).predict("Hello?", api_name="/text")
    assert "secret" not in caplog.text + metrics
    assert "text question answered" in caplog.text


def test_an_answer_under_way_ends_before_the_server_does() -> None:
    _, serving = talking(words=20, seconds=0.02)
    asked = Running(answered, serving, "Hello?")
    wait_until(lambda: serving.answering == 1)
    assert serving.stop()
    assert asked.result().text == "done"


def test_a_spoken_question_between_its_words_and_its_place_ends_before_the_server_does() -> None:
    assistant, serving = talking(words=2, seconds=0.0)
    assistant.go_on.set()
    spoken = serving.stream("", (), "spoken.wav")
    assert [next(spoken).transcript for _ in range(2)] == [None, "What is this?"]
    stopping = Running(serving.stop)
    stopping.thread.join(0.3)
    assert stopping.thread.is_alive()
    assert [*spoken][-1].text == "done"
    assert stopping.result()


def test_an_answer_that_does_not_end_in_time_is_cut_off_and_says_so() -> None:
    _, serving = talking(ServerSettings(stop_seconds=0), words=200, seconds=0.02)
    said: list[str] = []

    def ask() -> str:
        with pytest.raises(UserError) as cut:
            said.extend(snapshot.text for snapshot in serving.stream("Hello?"))
        return str(cut.value)

    asked = Running(ask)
    wait_until(lambda: bool(said) and bool(said[-1]))
    assert not serving.stop()
    assert asked.result().startswith("The server is being stopped, and the answer ends here.")
    assert len(said) < 100 and not serving.answering


def test_what_nobody_listens_to_any_more_ends() -> None:
    assistant, serving = talking()
    listens = threading.Event()
    token = CALLER.set(Caller("ann", lambda: not listens.is_set()))
    try:
        with closing(serving.stream("Hello?")) as snapshots:
            assert next(snapshots)
            listens.set()
            with pytest.raises(UserError, match="nobody was reading"):
                next(snapshots)
    finally:
        CALLER.reset(token)
    assert not assistant.under_way
    assert 'ended="stopped"} 1' in serving.measures.exposition({})


def test_what_is_not_the_callers_fault_is_told_so_by_its_status() -> None:
    _, serving = talking()
    serving.stop()
    with pytest.raises(NotNow) as stopping:
        next(serving.stream("Hello?"))
    assert api_error(stopping.value).status == 503


@pytest.mark.parametrize(
    ("address", "person"),
    [
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("::ffff:127.0.0.1", "loopback"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
    ],
)
def test_an_address_of_the_old_kind_in_the_new_ones_form_is_itself(address: str, person: str) -> None:
    assert person_at(address) == person


def test_a_whole_number_without_bounds_is_a_number_and_infinity_is_none() -> None:
    assert number_of(10**400, "seed") == 10**400
    for value in (float("inf"), float("nan"), True, "1"):
        with pytest.raises(UserError, match="seed must be a number"):
            number_of(value, "seed")


def test_uploads_are_swept_by_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "SWEEP_SECONDS", 0.1)
    monkeypatch.setattr(uploads, "KEEP_SECONDS", 1)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    with own_uploads(tmp_path, 2**30) as folder, served(fake_serving(FakeAssistant("one"))) as address:
        (sent,) = httpx.post(f"{address}gradio_api/upload", files={"files": CAT.open("rb")}).json()
        assert Path(sent).is_relative_to(folder.folder)
        assert Path(sent).read_bytes() == CAT.read_bytes()
        wait_until(lambda: not Path(sent).exists(), 10)
