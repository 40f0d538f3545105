"""What an adapter that knows one picture a conversation is asked, when people show it several.

Beside earlier pictures it would answer about the first. So the talk begins anew with each new picture, and pictures that
come together are asked about one by one, their answers standing in order. An adapter that was trained on several pictures
(`several_pictures` of its training preset) is asked as people ask.
"""

import re
from collections.abc import Sequence

from vlm.chat.answer import Turn

ORDINALS = ("First", "Second", "Third", "Fourth", "Fifth", "Sixth", "Seventh", "Eighth")


def since_latest_pictures(turns: Sequence[Turn]) -> list[Turn]:
    """The turns from the latest one that brought pictures; all of them where none did."""
    places = [place for place, turn in enumerate(turns) if turn.images]
    return list(turns[places[-1] :] if places else turns)


def joined(texts: Sequence[str]) -> str:
    """Answers about pictures in order -> one text, a line each."""
    return "\n".join(
        f"{ordinal} picture: {' '.join(text.split())}" for ordinal, text in zip(ORDINALS, texts, strict=False)
    )


def own_answer(text: str, place: int) -> str:
    """What a joined text says of one of the pictures; another text as it is."""
    found = re.search(rf"^{ORDINALS[place]} picture: (.*)$", text, re.MULTILINE)
    return found[1] if found else text
