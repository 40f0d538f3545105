"""The model on a server: a conversation -> chat messages with the pictures in them -> the server -> text.

The adapter and the base model are two names there, so that the way of a question stays the same: about pictures to the
adapter, words and the clean-up to the base model.
"""

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

from vlm.chat.answer import Picture, Settings
from vlm.chat.writer import Written
from vlm.engines.remote import NOTHING_YET, Piece, RemoteServer, TooLong
from vlm.errors import UserError
from vlm.inputs.images import as_data_url, open_image
from vlm.model.prompts import PromptTurn

JPEG_QUALITY = 92

logger = logging.getLogger(__name__)


class SentPicture(NamedTuple):
    """A picture as a message has it. The server looks at it by itself, so that nothing is known of it in words."""

    url: str
    tags: str = ""


@dataclass(frozen=True)
class RemoteWriter:
    """`base` and `adapter` are the server's names; without an adapter, it cannot see."""

    engine: RemoteServer
    base: str
    adapter: str | None

    @property
    def sees(self) -> bool:
        return self.adapter is not None

    @property
    def reads_ahead(self) -> bool:
        return False  # a server may be paid by what it reads

    def look(self, pictures: Sequence[Picture], question: str) -> list[SentPicture]:
        return [_sent(picture) for picture in pictures]

    def write(
        self,
        turns: Sequence[PromptTurn],
        sights: Sequence[Sequence[SentPicture]],
        system: str | None,
        settings: Settings,
        begun: str = "",
    ) -> Generator[Written | None, None, None]:
        """Where the conversation is too long for the server, the older half of its turns is left out, and again."""
        left_out, last = 0, len(turns) - 1
        while True:
            said = messages(turns, sights, system, left_out)
            request = self._request(said, bool(sights), settings) | _begun(said, begun)
            try:
                yield from self._written(request, begun, left_out)
                return
            except TooLong:
                if left_out == last:
                    raise
            left_out += (last - left_out + 1) // 2

    def warm_up(self, image_system: str, text_system: str | None) -> Iterator[None]:
        """See that the server has both models, and say in the log where it has not."""
        yield
        try:
            names = self.engine.models()
        except UserError as problem:
            logger.warning("%s", problem)
            return
        for name in filter(None, (self.base, self.adapter)):
            if name not in names:
                logger.warning(
                    "The server %s has no model %r, only: %s.", self.engine.device, name, ", ".join(names)
                )

    def _request(self, said: list[dict[str, Any]], seeing: bool, settings: Settings) -> dict[str, Any]:
        """All that bears on the choice of tokens is sent, since servers have defaults of their own."""
        return {
            "model": self.adapter if seeing else self.base,
            "messages": said,
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "top_k": -1,  # all
            "min_p": settings.min_p,
            "repetition_penalty": settings.repetition_penalty,  # vLLM's name, and llama.cpp's
            "repeat_penalty": settings.repetition_penalty,
            "seed": settings.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def _written(self, request: dict[str, Any], begun: str, left_out: int) -> Iterator[Written | None]:
        """The text as it grows. Until the server has counted, a piece counts as a token, and a server that disregards the
        limit is stopped at it."""
        written = Written(begun, 0, 0, left_out)
        with closing(self.engine.stream(request)) as pieces:
            for piece in pieces:
                if piece is None or piece == NOTHING_YET:  # as while it thinks
                    yield None
                    continue
                written = _grown(written, piece)
                yield written
                if written.tokens > request["max_tokens"]:
                    return


def _begun(said: list[dict[str, Any]], begun: str) -> dict[str, Any]:
    """What lets a server go on with an answer: vLLM must be told, llama.cpp sees that the last message is an answer."""
    if not begun:
        return {}
    answer = {"role": "assistant", "content": begun}
    return {"messages": [*said, answer], "add_generation_prompt": False, "continue_final_message": True}


def messages(
    turns: Sequence[PromptTurn],
    sights: Sequence[Sequence[SentPicture]],
    system: str | None,
    left_out: int,
) -> list[dict[str, Any]]:
    """The conversation from turn number `left_out` on. The pictures of those before it stay."""
    said: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    earlier = [picture for group in sights[:left_out] for picture in group]
    for number, turn in enumerate(turns[left_out:], left_out):
        pictures = [*(earlier if number == left_out else []), *(sights[number] if sights else [])]
        said.append({"role": "user", "content": _content(turn.question.strip(), pictures)})
        if turn.answer:
            said.append({"role": "assistant", "content": turn.answer.strip()})
    return said


def _content(question: str, pictures: Sequence[SentPicture]) -> str | list[dict[str, Any]]:
    if not pictures:
        return question
    shown = [{"type": "image_url", "image_url": {"url": picture.url}} for picture in pictures]
    return [*shown, {"type": "text", "text": question}]


def _sent(picture: Picture) -> SentPicture:
    return SentPicture(as_data_url(open_image(picture), JPEG_QUALITY))


def _grown(written: Written, piece: Piece) -> Written:
    return Written(
        text=written.text + piece.text,
        tokens=written.tokens + bool(piece.text) if piece.tokens is None else piece.tokens,
        prompt_tokens=written.prompt_tokens if piece.prompt_tokens is None else piece.prompt_tokens,
        left_out=written.left_out,
        ended=written.ended or piece.finish == "stop",
    )
