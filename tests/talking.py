"""Assistants whose answers a test ends or times. They need nothing that the app itself does not import."""

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from vlm import Answer, Settings
from vlm.config import LoraConfig, ModelConfig
from vlm.inputs.speech import Heard


class FakeAssistant:
    """Answers with its name. Its answers end when `go_on` is set."""

    adapter_folder, description, notice = None, "model · none · fake · CPU", ""
    config, settings = ModelConfig(name="tiny", lora=LoraConfig(rank=4, alpha=8)), Settings()

    def __init__(self, name: str, parallel: int = 8) -> None:
        self.name, self.engine, self.go_on = name, SimpleNamespace(parallel=parallel), threading.Event()
        self.closed = False
        self.under_way: list[object] = []

    def close(self) -> None:
        self.closed = True

    def warm_up(self) -> Iterator[None]:
        yield from self.read_ahead()

    def read_ahead(self, *read: Any) -> Iterator[None]:
        """Goes on until it is closed, or `go_on` is set."""
        self.under_way.append(read)
        try:
            while not self.go_on.wait(0.02):
                assert not self.closed
                yield
        finally:
            self.under_way.remove(read)

    def stream(self, *_: Any) -> Iterator[Answer]:
        answer = Answer(text=self.name)
        self.under_way.append(answer)
        try:
            yield answer
            assert self.go_on.wait(60)
            assert not self.closed
            yield Answer(text=self.name, stage="done")
        finally:
            self.under_way.remove(answer)


class TalkingAssistant(FakeAssistant):
    """Says a word every now and then, and counts the words that it said."""

    def __init__(self, words: int = 10_000, parallel: int = 1, seconds: float = 0.02) -> None:
        super().__init__("one", parallel)
        self.words, self.seconds = words, seconds
        self.said = 0
        self.asked: list[tuple[Any, ...]] = []

    def hear(self, audio: Any, language: str = "") -> Heard:
        self.go_on.wait(60)
        return Heard("What is this?", 600.0, 0.1)

    def stream(self, *question: Any) -> Iterator[Answer]:
        self.asked.append(question)
        self.under_way.append(question)
        try:
            for number in range(self.words):
                time.sleep(self.seconds)
                self.said += 1
                yield Answer(text="word " * number, tokens=number)
            yield Answer(text="done", stage="done", tokens=self.words)
        finally:
            self.under_way.remove(question)
