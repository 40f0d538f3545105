"""The texts of the page in six languages: one table, assets/page/translations.yaml, by their English words.

assets/page/translate.js shows them in the browser's language. Gradio's own `gr.I18n` puts marks into components instead: it
leaves choices, examples and HTML as they are, and its marks stand in the description of the API, which is to stay English.
"""

import json
from functools import cache

import yaml

from vlm.serving.assets import ASSETS

FILE = ASSETS / "page" / "translations.yaml"


@cache
def table() -> dict[str, dict[str, str]]:
    """A language's code -> English text -> the text in that language."""
    read = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    columns = enumerate(read["languages"])
    return {code: {text: row[place] for text, row in read["texts"].items()} for place, code in columns}


def table_script() -> str:
    """The table for the page's script. A `<` could end that."""
    return f"const TRANSLATIONS = {json.dumps(table(), ensure_ascii=False)};".replace("<", "\\u003c")


def translated(accepted: str, text: str) -> str:
    """The text in the first language of an Accept-Language header, as the page shows it."""
    code = accepted.split(",")[0].split(";")[0].split("-")[0].strip().lower()
    return table().get(code, {}).get(text, text)


def in_all_languages(text: str) -> set[str]:
    """An English text of the page and its translations."""
    return {text, *(texts[text] for texts in table().values())}
