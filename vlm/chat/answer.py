"""What goes into the assistant and comes out: settings, earlier turns, and an answer with how it came about."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from vlm.engines import Sampling
from vlm.errors import UserError

Picture = Image.Image | str | Path
Pictures = Sequence[Picture] | Picture  # one alone need not be in a list
Style = Literal["full", "keywords"]
LONGEST_ANSWER = 1024  # tokens
LONGEST_QUESTION = 8_000  # characters
LARGEST_SEED = 2**32 - 1


def each_of(pictures: Pictures) -> tuple[Picture, ...]:
    return (pictures,) if isinstance(pictures, Picture) else tuple(pictures)


class NoAnswer(UserError):
    """The model ended without a word."""


@dataclass(frozen=True)
class Settings:
    """What a person may choose; the preset has the defaults."""

    max_new_tokens: int = 400
    temperature: float = 0.0
    clean_up: bool = True
    style: Style = "full"
    top_p: float = 0.9
    min_p: float = 0.0
    repetition_penalty: float = 1.1
    seed: int = 0
    system: str | None = None  # what the model is told before a conversation in words; None: the preset's
    language: str = ""  # what is spoken: a code such as "de", "auto" to find out, "" as the preset says

    def __post_init__(self) -> None:
        bounds: dict[str, tuple[str, float, float]] = {
            "max_new_tokens": ("length", 1, LONGEST_ANSWER),
            "temperature": ("temperature", 0, 2),
            "top_p": ("top-p", 0, 1),
            "min_p": ("min-p", 0, 1),
            "repetition_penalty": ("repetition penalty", 1, 2),
            "seed": ("seed", 0, LARGEST_SEED),
        }
        for name, (told, least, most) in bounds.items():
            if not least <= getattr(self, name) <= most:  # false for NaN as well
                unit = " tokens" if name == "max_new_tokens" else ""
                raise UserError(f"The {told} must be between {least} and {most}{unit}.")
        if self.style not in ("full", "keywords"):
            raise UserError("The answer style must be full or keywords.")
        if len(self.system or "") > LONGEST_QUESTION:
            raise UserError(
                f"The instructions have {len(self.system or ''):,} characters and at most {LONGEST_QUESTION:,} fit. Please "
                "shorten them."
            )

    def sampling(self, end_ids: tuple[int, ...]) -> Sampling:
        return Sampling(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
            end_ids=end_ids,
        )


@dataclass(frozen=True)
class Turn:
    """One earlier exchange of the conversation."""

    question: str
    answer: str
    images: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Answer:
    """A snapshot of an answer; the last one has the stage "done". `seen` are the tags of the latest pictures
    (vlm/model/tags.py), as the prompt has them. `left_out` counts earlier turns that no longer fit, `set_aside` those
    before the latest pictures, of which an adapter for one picture at a time is not told (vlm/chat/one_by_one.py).
    `ended` is False where the length limit cut the answer. `seconds` holds wait (expected, in the stage "waiting"),
    transcribe, look, first_token, generate, clean_up and total, each where it has happened. `tokens` counts what was
    written for the draft, `prompt_tokens` what was read for it."""

    text: str = ""
    stage: Literal["waiting", "transcribing", "looking", "drafting", "cleaning", "done"] = "drafting"
    route: Literal["image", "text"] = "text"
    transcript: str | None = None
    seen: str = ""
    draft: str | None = None
    clean_up: str | None = None  # "accepted", "unchanged", "off", "rejected: <reason>", "failed: <reason>"
    model: str = ""
    adapter: str | None = None
    engine: str = ""
    device: str = ""
    seed: int = 0
    left_out: int = 0
    set_aside: int = 0
    ended: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    prompt_tokens: int = 0
    tokens_per_second: float = 0.0
    preset: str = ""

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
