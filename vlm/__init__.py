"""A small vision-language model that answers questions about pictures, typed or spoken.

from vlm import load_assistant
print(load_assistant("embedded").answer("What is this?", images=["cat.jpg"]).text)
"""

import logging

# Before bitsandbytes is imported, which warns of a kernel that it would fetch from the hub and can do without
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

from vlm.chat.assistant import Answer, Assistant, Settings, Turn, load_assistant  # noqa: E402
from vlm.errors import UserError  # noqa: E402

__all__ = ["Answer", "Assistant", "Settings", "Turn", "UserError", "load_assistant"]
