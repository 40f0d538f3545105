"""An answer -> how it came about, and how sure it is."""

import re

from vlm.chat.answer import Answer
from vlm.chat.words import words

# Of the answers that name one thing, those whose likeliest tag had less than this were right in 12 of 40 (Caltech-101 and
# Tux Paint, 120 pictures each), the others in 120 of 140. Descriptions of scenes were right in 97 of 103 below it.
SURE_FROM = 30  # percent
NAME_WORDS = 4  # an answer of at most so many words names a thing
UNNAMED = frozenset(  # of an answer that is a number or a colour, and names no thing
    "and none one two three four five six seven eight nine ten "
    "red orange yellow green blue purple pink brown black white gray grey silver gold beige".split()
)
_TAG = re.compile(r"([^,;]+?) (\d+)%")


def trace_of(answer: Answer) -> list[tuple[str, str]]:
    """How an answer came about, as labels and values; what does not apply is left out."""
    seconds = ", ".join(f"{name.replace('_', ' ')} {value:.1f} s" for name, value in answer.seconds.items())
    speed = f"{answer.tokens} tokens, {answer.tokens_per_second:.1f} a second" if answer.tokens else None
    rows = [
        ("Heard", answer.transcript),
        ("Seen", answer.seen),
        ("Draft", answer.draft),
        ("Clean-up", answer.clean_up),
        ("Model", answer.model),
        ("Adapter", answer.adapter or "off"),
        ("Engine", answer.engine),
        ("Device", answer.device),
        ("Seed", str(answer.seed) if answer.tokens else ""),
        ("Left out", f"{answer.left_out} earlier turns" if answer.left_out else ""),
        ("Set aside", f"{answer.set_aside} turns before the latest pictures" if answer.set_aside else ""),
        ("Time", seconds),
        ("Speed", speed),
    ]
    return [(label, value) for label, value in rows if value]


def certainty_note(answer: Answer) -> str:
    """ "" or a sentence of doubt, for an answer that names a thing where no tag is likely."""
    tags = [(int(chance), name.strip()) for name, chance in _TAG.findall(answer.seen)]
    said = words(answer.text)
    names = 0 < len(said) <= NAME_WORDS and said[0] not in ("yes", "no", "not") and not said[0].isdigit()
    names = names and not UNNAMED.issuperset(said)
    if answer.stage != "done" or not tags or not names:
        return ""
    chance, name = max(tags)
    if chance >= SURE_FROM:
        return ""
    return f"I am not sure: of all that I know, the picture looks most like “{name}”, at {chance} %."
