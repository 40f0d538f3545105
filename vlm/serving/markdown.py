"""What the model wrote -> HTML that is safe by construction: tags are text, and nothing is fetched from elsewhere.

Markdown's own formatting is rendered; raw HTML is shown as it stands, pictures are not drawn (their address could tell
another server what was said), and links open in a new tab without saying where they were found.
"""

from collections.abc import Sequence
from functools import cache
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token


class Renderer(RendererHTML):
    """Links that keep to themselves, and code with a button that copies it."""

    def link_open(self, tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
        tokens[place].attrSet("target", "_blank")
        tokens[place].attrSet("rel", "noopener noreferrer nofollow")
        return self.renderToken(tokens, place, options, env)

    def fence(self, tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
        language = escape(tokens[place].info.strip().split(" ")[0][:30])
        return _code(tokens[place].content, language)

    def code_block(self, tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
        return _code(tokens[place].content, "")


def _code(content: str, language: str) -> str:
    copy = '<button type="button" data-action="copy-code" translate="yes">Copy code</button>'
    head = f'<div class="code-head"><span>{language}</span>{copy}</div>'
    return f'<div class="code">{head}<pre><code>{escape(content, quote=False)}</code></pre></div>\n'


@cache
def _markdown() -> MarkdownIt:
    options = {"html": False, "breaks": True}
    reader = MarkdownIt("commonmark", options, renderer_cls=Renderer)
    return reader.enable(["table", "strikethrough"]).disable("image")


def to_html(text: str) -> str:
    return _markdown().render(text)
