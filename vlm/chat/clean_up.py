"""Draft -> answer: what the base model is asked to put right, and whether what it makes is taken.

Keywords become a sentence, and an answer that is one already stays as it is. The base model is small, so it is shown a few
of both first, and what it makes is taken only where it keeps the draft's meaning (`vlm.chat.meaning.keeps_meaning`).
"""

import re
from dataclasses import replace

from vlm.chat.answer import Settings
from vlm.chat.meaning import keeps_meaning
from vlm.chat.tidy import strip_echo, tidy
from vlm.chat.words import FUNCTION_WORDS, words
from vlm.model.prompts import PromptTurn

SYSTEM = (
    "Correct the note so that it answers the question. Repeat a note that is correct already. "
    "Use every word of the note in its order, and add only small words."
)
_GREEDY = Settings(max_new_tokens=48, repetition_penalty=1.0)  # a sentence
# What is rejected is drawn twice more: of 200 drafts of keywords 177 became sentences in place of 171.
TRIES = (_GREEDY, *(replace(_GREEDY, temperature=0.7, seed=seed) for seed in (1, 2)))
EXAMPLES = (
    ("What is this?", "A cat.", "A cat."),
    ("What is happening?", "A man is riding a bike down a hill.", "A man is riding a bike down a hill."),
    ("Where is the cup, to the left or to the right of the spoon?", "Left.", "Left."),
    ("What is in the picture?", "Dog brown sofa.", "A dog is on a brown sofa."),
    ("Describe the picture.", "Children play football park.", "Children are playing football in a park."),
    ("What else is there?", "Lamp, table, two chairs.", "There is a lamp, a table and two chairs."),
    ("What do you see?", "Photo old red barn.", "A photo of an old red barn."),
    (
        "How would you describe it?",
        "Girl helmet riding horse front fence.",
        "A girl with a helmet is riding a horse in front of a fence.",
    ),
    ("Tell me the color of the ball.", "Gray.", "Gray."),
    ("Is there a dog?", "No no dog.", "No, there is no dog."),
    ("Does the picture show a bus?", "No no bus.", "No, there is no bus."),
    (
        "What could I use it for?",
        "Could bake cut bread soups.",
        "You could bake it or cut it for bread and soups.",
    ),
    ("is there a circle in the image?", "No.", "No."),
    ("Is the dog to the left or to the right of the cat?", "Left.", "Left."),
)
WRITTEN_OUT = re.compile(r"[A-Z0-9].*[.!]", re.DOTALL)
ASKS_A_NAME = re.compile(
    r"\b(?:who|whose|where|name[sd]?|city|country|place|brand|language)\b", re.IGNORECASE
)
KEYWORDS_FROM = 3  # words; fewer are an answer with or without function words


def is_whole(draft: str) -> bool:
    """Whether there is nothing to put right: a capital, a stop, and function words between, which keywords lack. "Left.",
    "A cat." and "A dog is on a brown sofa." are whole, "Dog brown sofa." is not."""
    said = words(draft)
    complete = len(said) < KEYWORDS_FROM or not FUNCTION_WORDS.isdisjoint(said)
    return bool(said) and complete and bool(WRITTEN_OUT.fullmatch(draft.strip()))


def request(question: str, draft: str) -> list[PromptTurn]:
    """The conversation whose last answer is the rewriting."""
    shown = [PromptTurn(_note(asked, note), sentence) for asked, note, sentence in EXAMPLES]
    return [*shown, PromptTurn(_note(question, draft))]


def _note(question: str, draft: str) -> str:
    return f"Question: {question}\nNote: {draft}"


def judge(question: str, draft: str, rewriting: str) -> tuple[str, str]:
    """The answer, and "accepted", "unchanged" or "rejected: <reason>"."""
    candidate = tidy(strip_echo(rewriting, question))
    if candidate == draft:
        return draft, "unchanged"
    accepted, reason = keeps_meaning(draft, candidate, question)
    if not accepted:
        return draft, f"rejected: {reason}"
    return candidate if ASKS_A_NAME.search(question) else _in_lower_case(draft, candidate), "accepted"


def _in_lower_case(draft: str, sentence: str) -> str:
    """A draft of one word has a capital only because it stood first: "The shape is Teal." -> "The shape is teal." """
    word = draft.rstrip(".!")
    return sentence.replace(f" {word}", f" {word.lower()}") if word.isalpha() and word.istitle() else sentence
