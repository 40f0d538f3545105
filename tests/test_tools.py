"""The tools for other assistants, called by the official client of the Model Context Protocol."""

import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from mcp.types import CallToolResult

from tests.chatting import ChattingAssistant
from tests.conftest import EXAMPLES, served
from tests.test_server import PUBLIC, TalkingAssistant, talking
from tests.test_serving import wait_until
from tests.tiny_aligner import tiny_searcher
from vlm import Answer, Settings
from vlm.serving.accounts import Accounts, hash_password
from vlm.serving.environment import ServerSettings
from vlm.serving.serving import Serving

pytestmark = pytest.mark.server

CAT, SAILBOAT = EXAMPLES / "cat.jpg", EXAMPLES / "sailboat.jpg"
VOICE = EXAMPLES / "what-is-in-the-picture.wav"
TOOLS = ServerSettings("one", tools=True)


class LookingAssistant(TalkingAssistant):
    """Says what it was asked and how large the pictures are."""

    def stream(self, question: str, images: list[str], heard: Any, *_: Any) -> Iterator[Answer]:
        sizes = [Path(path).stat().st_size for path in images]
        yield Answer(text=f"{question}{heard.text if heard else ''} {sizes}", stage="done")


def data_url(path: Any, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    assistant = LookingAssistant()
    assistant.go_on.set()
    with served(Serving(assistant, TOOLS), load_searcher=tiny_searcher) as address:  # type: ignore[arg-type]
        yield address


@asynccontextmanager
async def session(address: str, headers: dict[str, str] | None = None) -> AsyncIterator[ClientSession]:
    async with (
        streamablehttp_client(f"{address}gradio_api/mcp/", headers=headers) as (read, write, _),
        ClientSession(read, write) as opened,
    ):
        await opened.initialize()
        yield opened


def use(address: str, tool: str, **arguments: Any) -> CallToolResult:
    async def run() -> CallToolResult:
        async with session(address) as opened:
            return await opened.call_tool(tool, arguments)

    return anyio.run(run)


def said(result: CallToolResult) -> str:
    assert not result.isError, result
    return result.content[0].text  # type: ignore[union-attr]


def uploaded(address: str, path: Any) -> str:
    (sent,) = httpx.post(f"{address}gradio_api/upload", files={"files": path.open("rb")}).json()
    return sent


def test_all_five_are_listed_with_descriptions_that_hold_together(address: str) -> None:
    async def run() -> Any:
        async with session(address) as opened:
            return (await opened.list_tools()).tools

    tools = {tool.name: tool for tool in anyio.run(run)}
    assert set(tools) == {"image", "text", "voice", "search", "classify"}
    for tool in tools.values():
        assert tool.description
        assert "context" not in tool.inputSchema["properties"]
        assert "$ref" not in str(tool.inputSchema)
    assert set(tools["image"].inputSchema["required"]) == {"question", "images"}


def test_image_sees_pictures_sent_as_an_upload_its_address_and_a_data_url(address: str) -> None:
    size, path = len(CAT.read_bytes()), uploaded(address, CAT)
    pictures = [path, f"{address}gradio_api/file={path}", data_url(CAT, "image/jpeg")]
    assert (
        said(use(address, "image", question="What is this?", images=pictures))
        == f"What is this? {[size] * 3}"
    )


def test_voice_and_image_take_a_recording(address: str) -> None:
    recording = uploaded(address, VOICE)
    assert said(use(address, "voice", audio=recording)) == "What is this? []"
    spoken = use(address, "image", question="", images=[data_url(CAT, "image/jpeg")], audio=recording)
    assert said(spoken).startswith("What is this? [")


def test_text_search_and_classify_answer(address: str) -> None:
    assert said(use(address, "text", question="Hello?")) == "Hello? []"
    pictures = [uploaded(address, path) for path in (CAT, SAILBOAT)]
    found = use(address, "search", words="a cat", pictures=pictures, count=1)
    assert len(found.structuredContent["result"]) == 1  # type: ignore[index]
    assert found.structuredContent["result"][0]["picture"] in ("cat.jpg", "sailboat.jpg")  # type: ignore[index]
    likely = use(address, "classify", picture=pictures[0], names="cat, sailboat").structuredContent
    assert set(likely) == {"cat", "sailboat"}  # type: ignore[arg-type]


def test_what_a_tool_is_not_told_is_as_the_preset_says() -> None:
    assistant = ChattingAssistant()
    assistant.settings = Settings(max_new_tokens=30, repetition_penalty=1.0, clean_up=False)
    with served(Serving(assistant, TOOLS)) as address:  # type: ignore[arg-type]
        use(address, "text", question="Hello?")
        use(address, "image", question="What?", images=[data_url(CAT, "image/jpeg")], max_new_tokens=40)
    text, image = (asked["settings"] for asked in assistant.asked)
    assert text == assistant.settings
    assert image == replace(assistant.settings, max_new_tokens=40)


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("image", {"question": "What?", "images": []}, "at least one picture"),
        ("image", {"question": "What?", "images": ["https://example.com/cat.jpg"]}, "not fetched"),
        ("image", {"question": "What?", "images": ["/etc/passwd"]}, "not here"),
        ("voice", {"audio": ""}, "send a recording"),
        ("text", {"question": "Hello?", "max_new_tokens": 99_999}, "between 1 and 1024"),
    ],
)
def test_what_is_wrong_is_said(address: str, tool: str, arguments: dict[str, Any], message: str) -> None:
    result = use(address, tool, **arguments)
    assert result.isError
    assert message in result.content[0].text  # type: ignore[union-attr]


def test_a_client_that_gives_up_frees_the_model() -> None:
    assistant, serving = talking(TOOLS)
    with served(serving) as address:

        async def give_up() -> None:
            async with session(address) as opened:
                with anyio.move_on_after(2):
                    await opened.call_tool("text", {"question": "Hello?"})
                    pytest.fail("There was an answer.")

        anyio.run(give_up)
        assert assistant.said
        wait_until(lambda: not assistant.under_way, 5)


def test_accounts_hold_for_tools_too() -> None:
    assistant, serving = talking(ServerSettings(auth="set", tools=True), words=1)
    with served(serving, accounts=Accounts({"ann": hash_password("secret")})) as address:

        async def ask(headers: dict[str, str]) -> str:
            async with session(address, headers) as opened:
                return said(await opened.call_tool("text", {"question": "Hello?"}))

        assert anyio.run(ask, {"Authorization": "Bearer ann:secret"}) == "done"
        with pytest.raises(BaseExceptionGroup):
            anyio.run(ask, {"Authorization": "Bearer ann:wrong"})
    assert len(assistant.asked) == 1


def test_nobody_takes_all_sessions() -> None:
    _, serving = talking(replace(PUBLIC, tools=True), words=1)
    begin = {"jsonrpc": "2.0", "id": 1, "method": "initialize"}
    begin["params"] = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "x", "version": "1"},
    }
    accepting = {"Accept": "application/json, text/event-stream"}
    with served(serving) as address:
        sent = [
            httpx.post(f"{address}gradio_api/mcp/", json=begin, headers=accepting).status_code
            for _ in range(20)
        ]
    assert sent[:10] == [200] * 10 and 429 in sent


def test_without_the_setting_there_are_no_tools() -> None:
    _, serving = talking(PUBLIC)
    with served(serving) as address:
        assert httpx.post(f"{address}gradio_api/mcp/", json={}).status_code in (404, 405)
