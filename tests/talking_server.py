"""A server in a process of its own, whose assistant says a word every tenth of a second: `python -m tests.talking_server`.

app.py with that assistant in place of the real one: the environment, the folder for uploads and the signals are the app's.
"""

import app
from tests.test_server import TalkingAssistant

if __name__ == "__main__":
    assistant = TalkingAssistant(words=30, seconds=0.1)
    app.load_assistant = lambda *_: assistant  # type: ignore[assignment]
    app.main()
