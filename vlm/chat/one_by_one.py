"""What an adapter that knows one picture a conversation is asked, when people show it several.

Beside earlier pictures it would answer about the first. So the talk begins anew with each new picture, and pictures that
come together are asked about one by one, their answers standing in order. An adapter that was trained on several pictures
(`several_pictures` of its training preset) is asked as people ask.
"""

import re
from collections.abc import Sequence

from vlm.chat.answer import Turn

# What can be told of several pictures together only, in questions such as "Which one is older?"
_COMPARING = re.compile(
    r"\b(?:compar\w*|differ|differs|difference|differences|different|similar|alike|same|in common"
    r"|which (?:one|picture|image|photo)|which of)\b",
    re.IGNORECASE,
)
# Which of them is meant; that there is one before the latest is known where this is asked
_EARLIER = re.compile(
    r"\b(?:(?:first|previous|earlier|other) (?:picture|image|photo)|(?:picture|image|photo) before)\b",
    re.IGNORECASE,
)
ORDINALS = ("First", "Second", "Third", "Fourth", "Fifth", "Sixth", "Seventh", "Eighth")
_JOINED = re.compile(rf"(?:{'|'.join(ORDINALS)}) picture: ")


def since_latest_pictures(turns: Sequence[Turn]) -> list[Turn]:
    """The turns from the latest one that brought pictures; all of them where none did."""
    places = [place for place, turn in enumerate(turns) if turn.images]
    return list(turns[places[-1] :] if places else turns)


def is_beyond(question: str, shown: int, set_aside: bool) -> bool:
    """Whether a question needs pictures side by side: a comparison where several came together, or one with a picture that
    was set aside with earlier talk."""
    compares = bool(_COMPARING.search(question))
    of_both = compares and bool(re.search(r"\b(?:they|them|both|two)\b", question, re.IGNORECASE))
    return (compares and shown > 1) or (set_aside and (of_both or bool(_EARLIER.search(question))))


def joined(texts: Sequence[str]) -> str:
    """Answers about pictures in order -> one text, a line for each picture that has an answer."""
    each = zip(ORDINALS, texts, strict=False)
    return "\n".join(f"{ordinal} picture: {' '.join(text.split())}" for ordinal, text in each if text.strip())


def is_joined(text: str) -> bool:
    """Whether an answer was joined of several, and so cannot go on."""
    return bool(_JOINED.match(text))


def own_answer(text: str, place: int) -> str:
    """What a joined text says of one of the pictures, "" where it was stopped before that one; another text as it is."""
    if not _JOINED.match(text):
        return text
    found = re.search(rf"^{ORDINALS[place]} picture: (.*)$", text, re.MULTILINE)
    return found[1] if found else ""
