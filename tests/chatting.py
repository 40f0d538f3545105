"""An assistant that answers at once, for the tests of the page where the answer does not matter."""

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from tests.tiny import tiny_config
from vlm import Answer, Settings, UserError
from vlm.inputs.speech import Heard


class ChattingAssistant:
    """Says how often it was asked, and what. `script`: a question -> other words; `refuses`: a question -> why it gets no
    answer; `slow`: seconds before each word."""

    adapter_folder, description, notice, adapter = None, "model · adapter tiny · fake · CPU", "", "tiny"
    config, settings = tiny_config(), Settings()

    def __init__(self) -> None:
        self.engine = SimpleNamespace(parallel=4)
        self.script: dict[str, str] = {}
        self.refuses: dict[str, str] = {}
        self.asked: list[dict[str, Any]] = []
        self.read: list[tuple[Any, Any]] = []  # pictures and what was said before, ahead of a question
        self.seen, self.ended, self.slow = "", True, 0.0
        self.clean_up, self.seconds = "off", dict[str, float]()

    def hear(self, audio: Any, language: str = "") -> Heard:
        return Heard("what was spoken", 1.0, 0.1, language or "en")

    def close(self) -> None:
        """Holds nothing."""

    def read_ahead(self, images: Any, history: Any = ()) -> Iterator[None]:
        self.read.append((images, history))
        yield

    def stream(
        self,
        question: str,
        images: Any = (),
        audio: Any = None,
        history: Any = (),
        settings: Any = None,
        begun: str = "",
    ) -> Iterator[Answer]:
        self.asked.append(
            {
                "question": question,
                "images": images,
                "audio": audio,
                "history": history,
                "settings": settings,
                "begun": begun,
            }
        )
        if question in self.refuses:
            raise UserError(self.refuses[question])
        heard = audio.text if audio else None
        text = self.script.get(question, f"Answer {len(self.asked)} to {question or heard}")
        route = "image" if images or any(turn.images for turn in history) else "text"
        said = begun
        for word in text.split(" "):
            said = f"{said} {word}".strip()
            time.sleep(self.slow)
            yield Answer(said, "drafting", route, heard, tokens=1)
        yield Answer(said, "done", route, heard, self.seen, said, self.clean_up, "fake", None, "fake", "CPU",
                     settings.seed, seconds=self.seconds, ended=self.ended or bool(begun), tokens=3)  # fmt: skip
