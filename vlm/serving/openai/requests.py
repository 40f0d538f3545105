"""The JSON of a chat completion, checked -> what is asked, with pictures and recordings still as they were sent.

OpenAI's own shapes, and those of programs that speak them loosely, Open WebUI among them: unknown keys are passed over,
but whatever would change the answer and is not to be had here is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from vlm.chat.answer import LARGEST_SEED, LONGEST_ANSWER, Settings
from vlm.serving.openai.errors import ApiError
from vlm.serving.openai.files import RECORDING_PREFIX

MAX_STOPS = 4
UNIONS = {
    "str",
    "list[Part]",
    "list[str]",
    "ImageUrl",
}  # in where pydantic finds an error, and not in what was sent
CHOSEN = {"temperature", "top_p", "min_p", "repetition_penalty", "seed"}  # of `Settings`, by the same names
# Key -> the values that ask for nothing
NOT_HERE: dict[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "functions": (None, []),
    "tool_choice": (None, "none", "auto"),
    "function_call": (None, "none", "auto"),
    "n": (None, 1),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "logit_bias": (None, {}),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "audio": (None,),
    "web_search_options": (None,),
}


class ImageUrl(BaseModel):
    url: str


class InputAudio(BaseModel):
    data: str
    format: str = Field("wav", pattern=r"^\w{1,8}$")


class FileReference(BaseModel):
    file_id: str


class Part(BaseModel):
    type: Literal["text", "image_url", "input_audio", "file"]
    text: str | None = None
    image_url: ImageUrl | str | None = None
    input_audio: InputAudio | None = None
    file: FileReference | None = None


class Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part] | None = None


class StreamOptions(BaseModel):
    include_usage: bool | None = False


class ChatRequest(BaseModel):
    model: str
    messages: list[Message] = Field(min_length=1)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None

    @property
    def stops(self) -> list[str]:
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stops) > MAX_STOPS or not all(stops):
            raise ApiError(400, f"At most {MAX_STOPS} stops can be given, none of them empty.", None, "stop")
        return stops

    def settings(self, defaults: Settings, system: str) -> Settings:
        """A longer answer than can be had is not refused: where it ends is told by its finish reason."""
        chosen = self.model_dump(include=CHOSEN, exclude_none=True)
        if "seed" in chosen:
            chosen["seed"] %= LARGEST_SEED + 1
        length = min(self.max_completion_tokens or self.max_tokens or defaults.max_new_tokens, LONGEST_ANSWER)
        return replace(defaults, **chosen, max_new_tokens=length, system=system or None)


@dataclass(frozen=True)
class Said:
    """A question and the answer to it, "" for the one to come. Pictures and recordings are as the message has them."""

    question: str
    answer: str = ""
    pictures: tuple[str, ...] = ()  # data URLs, addresses, identifiers of uploads
    recordings: tuple[InputAudio | str, ...] = ()  # what was sent, or identifiers of uploads


def read_request(body: Mapping[str, Any]) -> ChatRequest:
    for name, nothing in NOT_HERE.items():
        if body.get(name) not in nothing:
            raise ApiError(
                400,
                f"{name} is not supported here. Leave it out, and ask in words.",
                "unsupported_parameter",
                name,
            )
    messages = body.get("messages")
    for number, message in enumerate(messages if isinstance(messages, list) else ()):
        _check_role(message, f"messages.{number}")
    try:
        return ChatRequest.model_validate(body)
    except ValidationError as error:
        # a content may be text or parts: what is wrong with it is told by the deeper of the two
        first = max(error.errors(include_url=False, include_input=False), key=lambda each: len(each["loc"]))
        where = ".".join(str(each) for each in first["loc"] if each not in UNIONS)
        raise ApiError(400, f"{where}: {first['msg']}.", None, where) from error


def _check_role(message: Any, where: str) -> None:
    if not isinstance(message, dict):
        return
    if message.get("role") in ("tool", "function") or message.get("tool_calls"):
        raise ApiError(400, "Tools are not supported here: the model cannot call any.", None, where)


def conversation(messages: Sequence[Message]) -> tuple[str, list[Said]]:
    """The instructions of the system, wherever they stand, and who said what. Messages of one side in a row are one."""
    system: list[str] = []
    spoken: list[tuple[bool, Said]] = []  # whether it is an answer, and what it says
    for number, message in enumerate(messages):
        if message.role in ("system", "developer"):
            system.append(_words(message, number))
        elif message.role == "user":
            spoken.append((False, _question(message, number)))
        elif (words := _words(message, number)).strip():
            spoken.append((True, Said(words)))
    said: list[Said] = []
    for is_answer, group in groupby(spoken, key=lambda each: each[0]):
        together = _together([each for _, each in group])
        if not is_answer:
            said.append(together)
        elif said:
            said[-1] = replace(said[-1], answer=together.question)
        else:
            raise ApiError(400, "A conversation begins with a message of the user.", None, "messages")
    if not said or said[-1].answer or messages[-1].role == "assistant":
        raise ApiError(400, "The last message must be the user's: it is what is answered.", None, "messages")
    return _joined(system), said


def _words(message: Message, number: int) -> str:
    """ApiError where it is more than words."""
    question = _question(message, number)
    if question.pictures or question.recordings:
        raise ApiError(
            400, "Only the user's messages can hold pictures and recordings.", None, f"messages.{number}"
        )
    return question.question


def _question(message: Message, number: int) -> Said:
    if message.content is None or isinstance(message.content, str):
        return Said(message.content or "")
    texts: list[str] = []
    pictures: list[str] = []
    recordings: list[Any] = []
    for place, part in enumerate(message.content):
        given = getattr(part, part.type)
        if given is None:
            where = f"messages.{number}.content.{place}"
            raise ApiError(400, f"{where} has the type {part.type!r} and no {part.type}.", None, where)
        if isinstance(given, FileReference):
            is_recording = given.file_id.startswith(RECORDING_PREFIX)
            (recordings if is_recording else pictures).append(given.file_id)
        elif isinstance(given, InputAudio):
            recordings.append(given)
        elif part.type == "text":
            texts.append(given)
        else:
            pictures.append(given.url if isinstance(given, ImageUrl) else given)
    return Said(_joined(texts), "", tuple(pictures), tuple(recordings))


def _together(parts: Sequence[Said]) -> Said:
    pictures = tuple(each for part in parts for each in part.pictures)
    recordings = tuple(each for part in parts for each in part.recordings)
    return Said(_joined([part.question for part in parts]), "", pictures, recordings)


def _joined(texts: Sequence[str]) -> str:
    return "\n\n".join(text for text in texts if text.strip())
