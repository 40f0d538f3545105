"""A server in a process of its own, whose assistant says a word every tenth of a second: `python -m tests.talking_server`.

app.py with that assistant in place of the real one: the environment, the folder for uploads and the signals are the app's.
WORDS is how many it says. It tells when it is warmed up.
"""

import os
from collections.abc import Iterator

import app
from tests.talking import TalkingAssistant


class TellingAssistant(TalkingAssistant):
    def warm_up(self) -> Iterator[None]:
        print("Warming up.", flush=True)
        return super().warm_up()


if __name__ == "__main__":
    assistant = TellingAssistant(words=int(os.environ.get("WORDS", "30")), seconds=0.1)
    app.load_assistant = lambda *_: assistant  # type: ignore[assignment]
    app.main()
