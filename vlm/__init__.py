"""A small vision-language model that answers questions about pictures, typed or spoken.

from vlm import load_assistant
print(load_assistant("embedded").answer("What is this?", images=["cat.jpg"]).text)
"""

import logging
import sys
from contextlib import suppress
from importlib.util import find_spec

if not find_spec("torch"):
    sys.exit(
        "The packages of this project are not installed for this Python. `make run` installs them into .venv; then type "
        "`. .venv/bin/activate` and try again."
    )

with suppress(ImportError):
    # Whisper's library before torch: after it, it shares torch's OpenMP runtime, and slows llama.cpp down
    # (vlm/engines/llama_cpp.py)
    import ctranslate2  # noqa: F401

# Before bitsandbytes is imported, which warns of a kernel that it would fetch from the hub and can do without
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

from vlm.chat.answer import Answer, Settings, Turn  # noqa: E402
from vlm.chat.assistant import Assistant, load_assistant  # noqa: E402
from vlm.chat.search import Searcher, load_aligner  # noqa: E402
from vlm.errors import UserError  # noqa: E402

__all__ = [
    "Answer",
    "Assistant",
    "Searcher",
    "Settings",
    "Turn",
    "UserError",
    "load_aligner",
    "load_assistant",
]
