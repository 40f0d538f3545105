"""An assistant without a model, which says the colour of a picture's middle; and a folder of questions for it."""

import io
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
from PIL import Image

from tests.tiny import picture
from training.evaluate import evaluate
from training.scores.journal import Journal
from training.scores.selection import Options
from vlm.chat.answer import Settings, Turn

COLOURS = ("red", "blue", "lime")

NAMES = {(255, 0, 0): "red", (0, 0, 255): "blue", (0, 255, 0): "lime", (255, 255, 255): "white"}


class FakeAssistant:
    """Drafts are a bare word; the clean-up makes a sentence of it. Asked whether it is a colour, it says yes always."""

    looks_back = (
        False  # whether it answers about the first picture of a conversation, as one that knows but one
    )

    def __init__(self, parallel: int = 4, stops_after: int | None = None) -> None:
        self.settings, self.description = Settings(), "fake · adapter tiny · CPU"
        self.engine = SimpleNamespace(parallel=parallel)
        self.asked: list[tuple[str, str]] = []  # colour, question
        self.stops_after, self.lock = stops_after, threading.Lock()

    def close(self) -> None:
        self.engine = None  # type: ignore[assignment]

    def answer(
        self, question: str, images: list[Image.Image], settings: Settings, history: Sequence[Turn] = ()
    ) -> Any:
        (image,) = [*self.looks_back * [each for turn in history for each in turn.images], *images][:1]
        colour = NAMES.get(image.getpixel((image.width // 2, image.height // 2)), "grey")
        with self.lock:
            if self.stops_after is not None and len(self.asked) >= self.stops_after:
                raise KeyboardInterrupt
            self.asked.append((colour, question))
        draft = "yes" if question.startswith("Is it") else colour
        text = f"{draft.capitalize()}." if settings.clean_up else draft
        return SimpleNamespace(
            text=text,
            draft=draft,
            clean_up="accepted" if settings.clean_up else "off",
            tokens=2,
            ended=colour != "lime",
            seen=f"{colour} 9",
            seconds={"total": 0.01},
        )


def write_data(folder: Path, turns: dict[str, list[tuple[str, str, str]]], **more: Any) -> Path:
    """{colour: (task, question, answer)} -> a folder of parquet with every row in training and in test."""
    rows = []
    for name, asked in turns.items():
        content = io.BytesIO()
        picture(name).save(content, "PNG")
        for task, question, answer in asked:
            row = {
                "image": {"bytes": content.getvalue(), "path": name},
                "question": question,
                "answer": answer,
            }
            row |= {
                "task": task,
                "source": "tiny",
                "kind": "photo",
                "style": "flat",
                "noun": "",
                "accepted": [],
            }
            row |= {"references": [], "objects": []} | more
            rows += [row | {"split": "train"}, row | {"split": "test"}]
    parquet.write_table(pa.Table.from_pylist(rows), folder / f"{len(list(folder.glob('*')))}.parquet")
    return folder


def write_colours(folder: Path) -> Path:
    """Three pictures, each asked for its name, for a yes and for a no."""
    folder.mkdir()
    turns = {
        name: [
            ("name", "What is this?", f"A {name}."),
            ("yes", f"Is it {name}?", "Yes."),
            ("no", "Is it pink?", "No."),
        ]
        for name in COLOURS
    }
    return write_data(folder, turns)


def result_of(
    assistant: FakeAssistant, data: Path, journal: Journal | None = None, **changes: Any
) -> dict[str, Any]:
    options = replace(Options("tiny", task="all"), **changes)
    return evaluate(assistant, data, options, journal or Journal(None, {}))  # type: ignore[arg-type]
