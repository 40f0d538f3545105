"""The assistant that answers now, and the change to another preset while the page is up.

There is one model at a time. It is let go of before the next is loaded, so that a machine needs the memory of one only.
"""

import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import cached_property
from typing import Any, TypeVar

import torch

from vlm.chat.answer import Answer, Picture, Settings, Turn
from vlm.chat.assistant import Assistant, free_memory, load_assistant
from vlm.config import load_model_config, preset_names
from vlm.errors import UserError
from vlm.inputs.speech import Transcript
from vlm.model.adapter import model_config_of
from vlm.serving.gate import Gate

Item = TypeVar("Item")
LOOK_UP_SECONDS = 0.5  # how often an answer that waits for its turn looks whether it is still wanted


def runnable_presets() -> list[str]:
    """The shipped presets that this machine has the memory for. Takes seconds: every model is laid out."""
    # with it come Transformers' models and PEFT, half of the time that a page without them takes to start
    from vlm.model.sizes import fits

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return [name for name in preset_names() if fits(load_model_config(name), device)]


class Serving:
    """`adapter` goes with `preset`, as they were given at the start; every other preset comes with its own."""

    def __init__(self, assistant: Assistant, preset: str = "embedded", adapter: str | None = None) -> None:
        self._assistant: Assistant | None = assistant
        self._adapters = {preset: adapter}
        self._gate = Gate()
        self.preset = preset

    @property
    def assistant(self) -> Assistant:
        """To ask about, not to ask: questions go through `stream`, which a change of the preset waits for."""
        if self._assistant is None:
            raise UserError(
                "No model is loaded now. Wait if one is being changed, or choose one under About this model."
            )
        return self._assistant

    @property
    def parallel(self) -> int:
        """How many questions the engine answers at once."""
        return self.assistant.engine.parallel

    @cached_property
    def presets(self) -> list[str]:
        """What can be switched to: runnable shipped presets, and the one of the start, which may be a file."""
        return sorted({*self._adapters, *runnable_presets()})

    def stream(
        self,
        question: str,
        images: Sequence[Picture] = (),
        audio: str | None = None,
        history: Sequence[Turn] = (),
        settings: Settings | None = None,
        begun: str = "",
    ) -> Generator[Answer | None, None, None]:
        """`Assistant.stream` when it is this question's turn; until then None every now and then, so that it can be
        closed while it waits."""
        return self._in_turn(lambda: self.assistant.stream(question, images, audio, history, settings, begun))

    def transcribe(self, audio: str) -> Generator[Transcript | None, None, None]:
        """What is said in a recording, once it is its turn; until then None every now and then."""
        return self._in_turn(lambda: iter([self.assistant.transcriber.transcribe(audio)]))

    def _in_turn(self, work: Callable[[], Iterator[Item]]) -> Generator[Item | None, None, None]:
        ticket = self._gate.line_up()
        try:
            while not self._gate.enter(ticket, lambda: self.parallel, LOOK_UP_SECONDS):
                yield None
            yield from work()
        finally:
            self._gate.leave(ticket)

    def answer(self, *question: Any) -> Answer:
        """The finished answer. Arguments as for `stream`."""
        *_, last = self.stream(*question)
        assert last is not None
        return last

    def switch(self, preset: str) -> None:
        """Serve another preset, once the answers under way are given. Where it cannot be loaded, the one before is
        loaded again and UserError is raised."""
        if preset not in self.presets:
            raise UserError(f"There is no preset {preset!r} here. There are: {', '.join(self.presets)}.")
        with self._gate.alone():
            if preset == self.preset and self._assistant:
                return
            model_config_of(
                preset, self._adapters.get(preset)
            )  # find mistakes while the old one is still there
            before = self.preset
            try:
                self._load(preset)
            except Exception as problem:
                let_go(problem)
                self._load(before)
                raise

    def _load(self, preset: str) -> None:
        if self._assistant:
            self._assistant.close()
        self._assistant = None
        free_memory()
        self._assistant = load_assistant(preset, self._adapters.get(preset))
        self.preset = preset


def let_go(problem: BaseException | None) -> None:
    """Free what the frames of an error, and of the errors that it comes from, hold: a model that is loaded in part."""
    while problem:
        traceback.clear_frames(problem.__traceback__)
        problem = problem.__context__
