"""A small vision-language model that answers questions about pictures, typed or spoken.

from vlm import load_assistant
print(load_assistant("embedded").answer("What is this?", images=["cat.jpg"]).text)
"""

from vlm.assistant import Answer, Assistant, Settings, Turn, load_assistant
from vlm.errors import UserError

__all__ = ["Answer", "Assistant", "Settings", "Turn", "UserError", "load_assistant"]
