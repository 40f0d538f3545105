"""A chat request -> snapshots of its answer, in the line that the page's questions wait in."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request

from vlm.chat.answer import Answer, Settings, Turn
from vlm.chat.records import MAX_RECORD
from vlm.chat.reply import check_count
from vlm.errors import UserError
from vlm.inputs.speech import Heard
from vlm.serving.events import MAX_EVENTS
from vlm.serving.limits import TryLater
from vlm.serving.openai.media import Media
from vlm.serving.openai.requests import ChatRequest, Said, conversation
from vlm.serving.serving import Serving

Item = TypeVar("Item")
ENDED = object()
MAX_SENT = 32  # pictures of one request, all of which are decoded


class Gone(Exception):
    """Whoever asked has closed the connection."""


@dataclass(frozen=True)
class Chat:
    """A request that has been read."""

    said: list[Said]
    settings: Settings

    @property
    def sees(self) -> bool:
        return any(each.pictures for each in self.said)


class Asking:
    """At most as many requests as Gradio's queue holds are in progress; each waits for its turn before the gate."""

    def __init__(self, serving: Serving, media: Media) -> None:
        self.serving, self.media = serving, media
        self._under_way = 0
        self._threads = CapacityLimiter(2 * MAX_EVENTS)  # not the page's

    def read(self, asked: ChatRequest) -> Chat:
        system, said = conversation(asked.messages)
        sent = [len(each.pictures) for each in said]
        check_count(max(sent))  # those of which messages count together depends on the adapter
        if sum(sent) > MAX_SENT:
            raise UserError(f"At most {MAX_SENT} pictures can be sent at once. Please leave out the oldest.")
        if sum(len(each.question) + len(each.answer) for each in said) > MAX_RECORD:
            raise UserError(
                f"At most {MAX_RECORD:,} characters can be sent at once. Please leave out the oldest messages."
            )
        if len(said[-1].recordings) > 1:
            raise UserError("Please send one recording at a time.")
        return Chat(said, asked.settings(self.serving.assistant.settings, system))

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Within it a request may wait and be answered; TryLater where too many do."""
        if self._under_way >= MAX_EVENTS + self.serving.model.parallel:
            raise TryLater("Too many questions are waiting now.", self.serving.seconds_a_question)
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def snapshots(self, request: Request, chat: Chat) -> AsyncGenerator[Answer | None, None]:
        """The answer as it grows; None says that there is nothing new. Raises Gone once the connection is closed, at which
        the model stops."""
        async with self.place():
            with self.media.uploads.passing() as folder:
                *earlier, last = chat.said
                history = [await self._turn(request, each, folder) for each in earlier]
                pictures = await self.media.pictures(last.pictures, folder)
                recordings = await self.media.recordings(last.recordings, folder)
                asked = (last.question, pictures, next(map(str, recordings), None), history, chat.settings)
                async with aclosing(self._each(request, self.serving.stream(*asked))) as answers:
                    async for answer in answers:
                        yield answer

    async def heard(self, request: Request, recording: Path, language: str = "") -> Heard:
        """What is said in a recording. Raises Gone as well."""
        async with aclosing(self._each(request, self.serving.transcribe(str(recording), language))) as items:
            return await anext_something(items)

    async def _turn(self, request: Request, said: Said, folder: Path) -> Turn:
        """An earlier exchange; what was spoken in it is heard again."""
        recordings = await self.media.recordings(said.recordings, folder)
        heard = [(await self.heard(request, recording)).text for recording in recordings]
        question = " ".join(part for part in (said.question, *heard) if part)
        return Turn(question, said.answer, await self.media.pictures(said.pictures, folder))

    async def _each(
        self, request: Request, items: Iterator[Item | None]
    ) -> AsyncGenerator[Item | None, None]:
        with closing(items):  # type: ignore[type-var]
            while True:
                item: Any = await to_thread.run_sync(next, items, ENDED, limiter=self._threads)
                if item is ENDED:
                    return
                if await request.is_disconnected():
                    raise Gone
                yield item


async def anext_something(items: AsyncIterator[Item | None]) -> Item:
    """The next item that is not None."""
    while True:
        if (item := await anext(items)) is not None:
            return item
