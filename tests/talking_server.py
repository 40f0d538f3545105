"""A server in a process of its own, whose assistant says a word every tenth of a second: `python -m tests.talking_server`.

app.py with that assistant in place of the real one: the environment, the folder for uploads and the signals are the app's.
WORDS is how many it says. It tells how much of Gradio was parsed, and when it is warmed up.
"""

import ast
import os
from collections.abc import Iterator
from typing import Any

parsed, parse = list[str](), ast.parse


def parse_and_note(source: Any, *given: Any, **more: Any) -> Any:
    parsed.append(str(source))
    return parse(source, *given, **more)


ast.parse = parse_and_note  # type: ignore[assignment]

import app  # noqa: E402
from tests.talking import TalkingAssistant  # noqa: E402


class TellingAssistant(TalkingAssistant):
    def warm_up(self) -> Iterator[None]:
        print("Warming up.", flush=True)
        return super().warm_up()


if __name__ == "__main__":
    print(f"Components parsed: {sum('EVENTS' in source for source in parsed)}.", flush=True)
    assistant = TellingAssistant(words=int(os.environ.get("WORDS", "30")), seconds=0.1)
    app.load_assistant = lambda *_: assistant  # type: ignore[assignment]
    app.main()
