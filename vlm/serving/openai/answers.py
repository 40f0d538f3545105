"""An answer as it grows -> chat completions in OpenAI's form, whole or in chunks."""

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any

from vlm.chat.answer import Answer


class Telling:
    """What of a growing text may be told already: not what a stop could still take back, nor what a clean-up rewrites."""

    def __init__(self, stops: Sequence[str], style: str) -> None:
        self.stops, self.style = stops, style
        self.told = ""
        self.stopped = False

    def new(self, answer: Answer) -> str:
        """What to tell now, besides what was told before. `stopped` is True once a stop has come."""
        done = answer.stage == "done"
        if not done and (answer.route != "text" or self.style != "full"):
            return ""
        text, self.stopped = _cut(answer.text.strip() if done else answer.text.lstrip(), self.stops)
        if self.stopped:
            text = text.rstrip()
        elif not done:
            text = _certain(text, self.stops)
        new, self.told = text[len(self.told) :], text
        return new

    def finish_reason(self, answer: Answer) -> str:
        return "stop" if self.stopped or answer.ended else "length"


def _cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop in it, and whether there is one."""
    places = [place for place in (text.find(stop) for stop in stops) if place >= 0]
    return (text[: min(places)], True) if places else (text, False)


def _certain(text: str, stops: Sequence[str]) -> str:
    """The text without what may be the beginning of a stop, or the space at its end."""
    kept = len(text)
    for stop in stops:
        for size in range(min(len(stop) - 1, len(text)), 0, -1):
            if text.endswith(stop[:size]):
                kept = min(kept, len(text) - size)
                break
    return text[:kept].rstrip()


class Completion:
    """The frame of one completion. `model` is the name of what answers."""

    def __init__(self, model: str) -> None:
        self.model, self.created = model, int(time.time())
        self.identity = f"chatcmpl-{secrets.token_hex(12)}"

    def whole(self, text: str, finish_reason: str, answer: Answer) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
        return self._frame("chat.completion", [choice]) | {"usage": usage(answer)}

    def beginning(self) -> dict[str, Any]:
        return self._chunk({"role": "assistant", "content": ""})

    def piece(self, text: str) -> dict[str, Any]:
        return self._chunk({"content": text})

    def end(self, finish_reason: str) -> dict[str, Any]:
        return self._chunk({}, finish_reason)

    def counts(self, answer: Answer) -> dict[str, Any]:
        return self._frame("chat.completion.chunk", []) | {"usage": usage(answer)}

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._frame("chat.completion.chunk", [choice])

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        frame = {"id": self.identity, "object": kind, "created": self.created, "model": self.model}
        return frame | {"choices": choices}


def usage(answer: Answer) -> dict[str, int]:
    """Tokens of the question as the model read it, visual ones among them, and of its answer before any clean-up."""
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.tokens,
        "total_tokens": answer.prompt_tokens + answer.tokens,
    }


def event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"  # in ASCII: some clients end a line at a separator within a text


LAST_EVENT = "data: [DONE]\n\n"


def closing_events(completion: Completion, reason: str, answer: Answer, with_usage: bool) -> Iterator[str]:
    yield event(completion.end(reason))
    if with_usage:
        yield event(completion.counts(answer))
    yield LAST_EVENT
