"""The routes under /v1: chat completions, models, transcriptions and uploads.

Pictures go to the adapter and the clean-up, words and speech to the base model, as on the page: either name of a model
is answered to, and the answer names the one that gave it. Instructions of the system are followed where the conversation
has no pictures; about those the adapter knows only the words that it was trained with.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from vlm.chat.answer import Answer
from vlm.serving.openai.access import check_access
from vlm.serving.openai.answers import Completion, Telling, closing_events, event
from vlm.serving.openai.asking import Asking, Chat, Gone, anext_something
from vlm.serving.openai.bodies import form_of, json_of
from vlm.serving.openai.errors import ApiError, OpenAIRoute, api_error
from vlm.serving.openai.files import ApiFiles, copy, suffix_of
from vlm.serving.openai.media import Media
from vlm.serving.openai.requests import read_request
from vlm.serving.serving import Serving
from vlm.weights.resolve import public_name

CLIENT_CLOSED_REQUEST = 499  # nobody reads it
EVERY_METHOD = ["GET", "POST", "PUT", "PATCH", "DELETE"]
TRANSCRIPT_SHAPES = "json", "text", "verbose_json"
# Of a stream, after which a comment is sent: proxies and programs give a silent one up after a minute
SILENCE_SECONDS = 10.0
COMMENT = ": nothing new yet\n\n"
TRANSCRIPTION_NAME = "whisper-1"  # what clients ask for where nobody told them another


def openai_routes(serving: Serving) -> APIRouter:
    """To be mounted before the page's own routes."""
    uploads, check = ApiFiles(), Depends(partial(check_access, serving.settings))
    asking = Asking(serving, Media(uploads, serving.settings.picture_hosts))
    endpoint = OpenAIHandlers(serving, asking, uploads)
    router = APIRouter(prefix="/v1", route_class=OpenAIRoute, dependencies=[check], include_in_schema=False)
    router.add_api_route("/models", endpoint.models, methods=["GET"])
    router.add_api_route("/models/{name:path}", endpoint.model, methods=["GET"])
    router.add_api_route("/chat/completions", endpoint.chat, methods=["POST"])
    router.add_api_route("/audio/transcriptions", endpoint.transcription, methods=["POST"])
    router.add_api_route("/files", endpoint.upload, methods=["POST"])
    router.add_api_route("/files/{identity}", endpoint.uploaded, methods=["GET"])
    router.add_api_route("/files/{identity}", endpoint.delete, methods=["DELETE"])
    router.add_api_route("/{path:path}", endpoint.unknown, methods=EVERY_METHOD)
    return router


class OpenAIHandlers:
    def __init__(self, serving: Serving, asking: Asking, uploads: ApiFiles) -> None:
        self.serving, self.asking, self.uploads = serving, asking, uploads
        self.started = int(time.time())

    async def models(self) -> Response:
        return JSONResponse({"object": "list", "data": list(map(self._described, self._names()))})

    async def model(self, name: str) -> Response:
        self._check_model(name)
        return JSONResponse(self._described(name))

    async def chat(self, request: Request) -> Response:
        async with self.asking.place():
            asked = read_request(await json_of(request))
        self._check_model(asked.model)
        chat = self.asking.read(asked)
        telling = Telling(asked.stops, chat.settings.style)
        completion = Completion(self._answering(chat))
        answers = self.asking.snapshots(request, chat)
        try:
            # what is refused is refused before the first chunk, while there is a status to tell it with
            first = await anext_something(answers)
            if not asked.stream:
                return await _whole(completion, telling, first, answers)
        except Gone:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        with_usage = bool(asked.stream_options and asked.stream_options.include_usage)
        events = _events(completion, telling, first, answers, with_usage)
        return StreamingResponse(
            events, headers={"Cache-Control": "no-store"}, media_type="text/event-stream"
        )

    async def transcription(self, request: Request) -> Response:
        async with self.asking.place(), form_of(request) as (form, file):
            shape = self._transcript_shape(form)
            with self.uploads.passing(file.size or 0) as folder:
                recording = folder / f"recording{suffix_of(file.filename or '')}"
                await run_in_threadpool(copy, file.file, recording)
                try:
                    heard = await self.asking.heard(request, recording, str(form.get("language") or ""))
                except Gone:
                    return Response(status_code=CLIENT_CLOSED_REQUEST)
        if shape == "text":
            return PlainTextResponse(f"{heard.text}\n")
        more = {"task": "transcribe", "language": heard.language, "duration": heard.audio_seconds}
        return JSONResponse({"text": heard.text} | (more if shape == "verbose_json" else {}))

    async def upload(self, request: Request) -> Response:
        async with self.asking.place(), form_of(request) as (form, file):
            purpose = str(form.get("purpose") or "user_data")
            uploaded = await self.uploads.add(file.file, file.filename or "", file.size or 0, purpose)
            return JSONResponse(uploaded.to_dict())

    async def uploaded(self, identity: str) -> Response:
        return JSONResponse(self.uploads.get(identity).to_dict())

    async def delete(self, identity: str) -> Response:
        self.uploads.delete(identity)
        return JSONResponse({"id": identity, "object": "file", "deleted": True})

    async def unknown(self, path: str) -> Response:
        raise ApiError(404, f"There is no /v1/{path} here, or not with this method.")

    def _names(self) -> list[str]:
        """The adapter, where there is one, and the base model."""
        assistant = self.serving.assistant
        return [
            *([assistant.adapter] if assistant.adapter else []),
            assistant.model,
        ]

    def _answering(self, chat: Chat) -> str:
        return self._names()[0 if chat.sees else -1]

    def _check_model(self, name: str) -> None:
        if name not in self._names():
            names = ", ".join(self._names())
            raise ApiError(
                404, f"There is no model {name!r} here. There is: {names}.", "model_not_found", "model"
            )

    def _described(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self.started, "owned_by": "ask-a-picture"}

    def _transcript_shape(self, form: FormData) -> str:
        """The wanted form of a transcript. ApiError where anything is wanted that is not to be had."""
        names = [TRANSCRIPTION_NAME, public_name(self.serving.assistant.config.speech.weights)]
        if form.get("model") not in names:
            told = ", ".join(names)
            raise ApiError(404, f"Recordings are heard by: {told}.", "model_not_found", "model")
        shape = str(form.get("response_format") or "json")
        if shape not in TRANSCRIPT_SHAPES:
            shapes = ", ".join(TRANSCRIPT_SHAPES)
            raise ApiError(400, f"A transcript can be had as: {shapes}.", None, "response_format")
        if form.get("stream") == "true":
            raise ApiError(400, "A transcript comes whole. Leave out stream.", None, "stream")
        return shape


async def _whole(
    completion: Completion, telling: Telling, first: Answer, answers: AsyncGenerator[Answer | None, None]
) -> Response:
    text, latest = "", first
    async with aclosing(answers):
        async for new, snapshot in _told(telling, first, answers):
            text, latest = text + new, snapshot
    return JSONResponse(completion.whole(text, telling.finish_reason(latest), latest))


async def _events(
    completion: Completion,
    telling: Telling,
    first: Answer,
    answers: AsyncGenerator[Answer | None, None],
    with_usage: bool,
) -> AsyncIterator[str]:
    latest, said = first, time.monotonic()
    async with aclosing(answers):
        try:
            yield event(completion.beginning())
            async for new, snapshot in _told(telling, first, answers):
                latest = snapshot
                if new or time.monotonic() - said > SILENCE_SECONDS:
                    yield event(completion.piece(new)) if new else COMMENT
                    said = time.monotonic()
            for each in closing_events(completion, telling.finish_reason(latest), latest, with_usage):
                yield each
        except Gone:
            return
        except Exception as problem:
            yield event(api_error(problem).body)


async def _told(
    telling: Telling, first: Answer, answers: AsyncGenerator[Answer | None, None]
) -> AsyncIterator[tuple[str, Answer]]:
    """What is new to tell, mostly nothing, and the latest snapshot. `first` is the first one, which `answers` goes on from.

    To their end, not to the last of them, unless a stop has come: an answer that is closed before counts as stopped."""
    latest = first
    yield telling.new(first), first
    while not telling.stopped:
        try:
            snapshot = await anext(answers)
        except StopAsyncIteration:
            return
        latest = snapshot or latest
        yield telling.new(latest), latest
