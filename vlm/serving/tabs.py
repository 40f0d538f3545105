"""What sets the three conversation tabs apart: their words, what can be put in, and their examples."""

from dataclasses import dataclass
from pathlib import Path

from vlm.chat.conversation import Exchange

IMAGE_QUESTIONS = {  # of each picture, in the order of the page
    "coffee.jpg": "What is this?",
    "laptop.jpg": "What is it used for?",
    "sailboat.jpg": "Where could this be?",
    "stop-sign.jpg": "Describe the picture.",
    "lotus.jpg": "What is this?",
    "cat.jpg": "Is there a dog in the picture?",
}
TEXT_QUESTIONS = ("Why is the sky blue?", "Give me three names for a cat.", "What is the capital of France?")
VOICE_RECORDINGS = ("what-is-the-capital-of-France.wav", "why-is-the-sky-blue.wav")


@dataclass(frozen=True)
class Tab:
    name: str
    invitation: str
    prompt: str = ""
    typed: bool = True
    pictures: bool = False
    examples: tuple[Exchange, ...] = ()


def conversation_tabs(examples: Path) -> list[Tab]:
    """The tabs, with their examples from that folder."""
    return [
        Tab(
            name="Image",
            invitation="Add a picture and ask about it",
            prompt="Ask about the picture",
            pictures=True,
            examples=_image_examples(examples),
        ),
        Tab(
            name="Text",
            invitation="Ask anything",
            prompt="Your question",
            examples=tuple(map(Exchange, TEXT_QUESTIONS)),
        ),
        Tab(
            name="Voice",
            invitation="Press Speak, or choose a recording",
            typed=False,
            examples=tuple(Exchange("", recording=str(examples / name)) for name in VOICE_RECORDINGS),
        ),
    ]


def _image_examples(examples: Path) -> tuple[Exchange, ...]:
    typed = [Exchange(question, (str(examples / name),)) for name, question in IMAGE_QUESTIONS.items()]
    spoken = Exchange("", (str(examples / "stop-sign.jpg"),), str(examples / "what-color-is-it.wav"))
    return (*typed, spoken)
