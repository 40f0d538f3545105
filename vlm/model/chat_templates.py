"""Chat templates of vision-language models -> templates of text alone, which prompts.py splits.

Processors have templates whose messages are lists of parts, pictures and text. Here a message is text, and the visual
tokens of its pictures go in front of it, each followed by the end of a line, as LLaVA has them.
"""

import json
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from vlm.errors import UserError
from vlm.model.prompts import can_split

# Turns messages of text into messages of parts
AS_PARTS = (
    "{%- set typed = namespace(messages=[]) -%}"
    "{%- for message in messages -%}"
    "{%- set part = {'type': 'text', 'text': message['content']} -%}"
    "{%- set typed.messages = typed.messages + [{'role': message['role'], 'content': [part]}] -%}"
    "{%- endfor -%}"
    "{%- set messages = typed.messages -%}"
)
# Puts each of llama.cpp's markers, <__media__> or with random letters in it, on a line of its own
ON_LINES = (
    "{%- set lined = namespace(messages=[], text='') -%}"
    "{%- for message in messages -%}"
    "{%- set lined.text = message['content'] -%}"
    "{%- if '<__media' in lined.text -%}{%- set lined.text = lined.text | replace('__>', '__>\n') -%}{%- endif -%}"
    "{%- set lined.messages = lined.messages + [{'role': message['role'], 'content': lined.text}] -%}"
    "{%- endfor -%}"
    "{%- set messages = lined.messages -%}"
)
# Turns messages of parts into messages of text, pictures first and on lines of their own; messages of text stay
AS_TEXT = (
    "{%- set plain = namespace(messages=[], text='') -%}"
    "{%- for message in messages -%}"
    "{%- if message['content'] is string -%}{%- set plain.text = message['content'] -%}"
    "{%- else -%}{%- set plain.text = '' -%}"
    "{%- for part in message['content'] -%}{%- if part['type'] != 'text' -%}"
    "{%- set plain.text = plain.text + IMAGE + '\n' -%}{%- endif -%}{%- endfor -%}"
    "{%- for part in message['content'] -%}{%- if part['type'] == 'text' -%}"
    "{%- set plain.text = plain.text + part['text'] -%}{%- endif -%}{%- endfor -%}"
    "{%- endif -%}"
    "{%- set plain.messages = plain.messages + [{'role': message['role'], 'content': plain.text}] -%}"
    "{%- endfor -%}"
    "{%- set messages = plain.messages -%}"
)
# Vicuna's conversation, which the original LLaVA-1.5 was trained in, without its optional system prompt
VICUNA = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + ' ' }}"
    "{% elif message['role'] == 'user' %}{{ 'USER: ' + message['content'] + ' ' }}"
    "{% else %}{{ 'ASSISTANT: ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def text_template(folder: Path, tokenizer: Any, image_token: str) -> str:
    """The template of a checkpoint's folder for messages of text. `tokenizer` is the checkpoint's own.

    Raises UserError where there is none, where it cannot be split, and where it puts pictures elsewhere."""
    candidates = []
    if template := _processor_template(folder):
        _check_pictures(tokenizer, template, image_token, folder.name)
        candidates = [template, AS_PARTS + template]
    if tokenizer.chat_template:
        candidates += [tokenizer.chat_template, AS_PARTS + tokenizer.chat_template]
    for template in candidates:
        tokenizer.chat_template = template
        if can_split(tokenizer):
            return _beginning(tokenizer) + template
    raise UserError(
        f"The chat template of {folder.name} cannot be split at its questions and answers, or there is none. Put one "
        "that writes each message once into its chat_template.jinja."
    )


def processor_template(template: str, image_token: str) -> str:
    """A template for messages of text -> one for messages of parts as well, as Transformers' processors have them."""
    return AS_TEXT.replace("IMAGE", repr(image_token)) + template


def server_template(template: str) -> str:
    """A template for messages of text -> one for llama.cpp, which puts a marker for each picture in front of the text."""
    return ON_LINES + template


def _processor_template(folder: Path) -> str | None:
    plain, packed = folder / "chat_template.jinja", folder / "chat_template.json"
    if plain.is_file():
        return plain.read_text(encoding="utf-8")
    if packed.is_file():
        return json.loads(packed.read_text(encoding="utf-8")).get("chat_template")
    return None


def _check_pictures(tokenizer: Any, template: str, image_token: str, name: str) -> None:
    """A template of parts is to write each picture as its token and the end of a line, in front of the question."""
    question = "\ue000"
    parts = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": question}]
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": parts}], chat_template=template, tokenize=False
        )
    except (TemplateError, TypeError):  # it wants text
        return
    if image_token in text and f"{image_token}\n" * 2 + question not in text:
        raise UserError(
            f"The chat template of {name} does not put pictures in front of the question, each on a line of its own. "
            "Such a checkpoint cannot be imported."
        )


def _beginning(tokenizer: Any) -> str:
    """The token that begins a text, where the tokenizer adds it and the template has it not."""
    begin = tokenizer.bos_token_id
    if begin is None or tokenizer("").input_ids[:1] != [begin]:
        return ""
    question = [{"role": "user", "content": "?"}]
    text = tokenizer.apply_chat_template(question, tokenize=False)
    return "" if text.startswith(tokenizer.bos_token) else "{{ bos_token }}"
