"""What the model wrote -> HTML that is safe by construction: tags are text, and nothing is fetched from elsewhere.

Markdown's own formatting is rendered; raw HTML is shown as it stands, pictures are not drawn (their address could tell
another server what was said), and links open in a new tab without saying where they were found. Formulas stay the LaTeX
that they are, which assets/page/formulas.js draws.
"""

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

# A single $ is mostly money. Without a bound, many openings and no end would be searched through for minutes.
FORMULA = re.compile(r"\\\(.{1,1000}?\\\)|\\\[.{1,1000}?\\\]|\$\$.{1,1000}?\$\$", re.DOTALL)
KEPT = 512  # answers, since a page that is drawn ten times a second shows all of them each time


class Renderer(RendererHTML):
    """Links that keep to themselves, code with a button that copies it, and tables that scroll sideways."""

    def link_open(self, tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
        tokens[place].attrSet("target", "_blank")
        tokens[place].attrSet("rel", "noopener noreferrer nofollow")
        return self.renderToken(tokens, place, options, env)

    def fence(self, tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
        language = escape(tokens[place].info.strip().split(" ")[0][:30])
        return _code(tokens[place].content, language)

    def code_block(self, tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
        return _code(tokens[place].content, "")

    def table_open(self, tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
        return '<div class="table"><table>\n'

    def table_close(self, tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
        return "</table></div>\n"

    def formula(self, tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
        return f'<code class="formula">{escape(tokens[place].content, quote=False)}</code>'

    def formula_block(self, tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
        return f"<p>{self.formula(tokens, place, options, env)}</p>\n"


def _code(content: str, language: str) -> str:
    copy = '<button type="button" data-action="copy-code" translate="yes">Copy code</button>'
    head = f'<div class="code-head"><span>{language}</span>{copy}</div>'
    return f'<div class="code">{head}<pre><code>{escape(content, quote=False)}</code></pre></div>\n'


def _formula(state: StateInline, silent: bool) -> bool:
    """A rule of markdown-it: a formula within a paragraph."""
    found = FORMULA.match(state.src, state.pos, state.posMax)
    if not found:
        return False
    if not silent:
        state.push("formula", "", 0).content = found[0]
    state.pos = found.end()
    return True


def _formula_block(state: StateBlock, first: int, end: int, silent: bool) -> bool:
    """A rule of markdown-it: a formula that stands on lines of its own, of which one may look like an entry of a list."""
    start = state.bMarks[first] + state.tShift[first]
    found = FORMULA.match(state.src, start)
    if not found or state.src.startswith(r"\(", start) or "\n\n" in found[0]:
        return False
    last = next((line for line in range(first, end) if state.eMarks[line] >= found.end()), end)
    if last == end or state.src[found.end() : state.eMarks[last]].strip():
        return False
    if not silent:
        state.push("formula_block", "", 0).content = found[0]
        state.line = last + 1
    return True


@cache
def _markdown() -> MarkdownIt:
    options = {"html": False, "breaks": True}
    reader = MarkdownIt("commonmark", options, renderer_cls=Renderer)
    reader.inline.ruler.before("escape", "formula", _formula)
    reader.block.ruler.before("fence", "formula_block", _formula_block, {"alt": ["paragraph"]})
    return reader.enable(["table", "strikethrough"]).disable("image")


@lru_cache(KEPT)
def to_html(text: str) -> str:
    return _markdown().render(text)


@lru_cache(KEPT)
def to_words(text: str) -> str:
    """What the model wrote without the signs of Markdown, as it is read aloud: a line for each block or row of a table."""
    return re.sub(r"(, )?\n+", "\n", "".join(map(_words, _markdown().parse(text)))).strip()


def _words(token: Token) -> str:
    match token.type:
        case "inline":
            return "".join(_words(each) for each in token.children or ())
        case "th_close" | "td_close":
            return ", "
        case "list_item_open":
            return f"{token.info}. " if token.info else ""
        case "softbreak" | "hardbreak" | "paragraph_close" | "heading_close" | "tr_close":
            return "\n"
        case "fence" | "code_block" | "formula_block":
            return f"{token.content}\n"
    return token.content
