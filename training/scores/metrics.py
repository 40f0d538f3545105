"""One answer beside what would have been right -> whether it is right; shares with their interval. Pure functions.

An answer that says neither yes nor no is wrong on a yes/no question, and one that names two of the options or two numbers
is wrong too. captions.py scores whole sentences, chair.py the objects that they name.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import NormalDist
from typing import NamedTuple

from training.wording.questions import CHOOSE
from training.wording.words import COUNTING
from vlm.chat.words import content_words, to_keywords

ARTICLES = {"a", "an", "the"}
NUMBERS = {word: str(number) for number, word in enumerate(COUNTING)}
YES_OR_NO = {"yes": "yes", "yeah": "yes", "yep": "yes", "no": "no", "nope": "no"}
CHOICES = [re.compile(re.escape(form).replace(r"\{x\}", "(.+)"), re.IGNORECASE) for form in CHOOSE]


class Share(NamedTuple):
    """How many of how many, and the 95 % Wilson interval of the share (Wilson, 1927)."""

    right: int
    of: int
    share: float
    low: float
    high: float


def share(right: Sequence[bool]) -> Share:
    return share_of(sum(right), len(right))


def share_of(count: int, of: int) -> Share:
    if not of:
        return Share(0, 0, 0.0, 0.0, 1.0)
    z = NormalDist().inv_cdf(0.975)
    rate = count / of
    centre = rate + z * z / (2 * of)
    half = z * math.sqrt(rate * (1 - rate) / of + z * z / (4 * of * of))
    scale = 1 + z * z / of
    return Share(count, of, rate, (centre - half) / scale, (centre + half) / scale)


def normalise(answer: str) -> str:
    """As VQA evaluation does it (arXiv:1505.00468): lower case, no punctuation, no articles."""
    words = re.sub(r"[^\w\s]", " ", answer.lower()).split()
    return " ".join(word for word in words if word not in ARTICLES)


def is_exact(answer: str, truth: str) -> bool:
    return normalise(answer) == normalise(truth)


def restates(answer: str, truth: str, question: str) -> bool:
    """Whether the answer says the short truth and adds nothing but words of the question: "The ball is red." for "Red."

    The alternatives of a question with "or" may not be added. Words are compared in their base forms."""
    said, right = set(content_words(answer)), set(content_words(truth))
    asked = question
    if re.search(r"\bor\b", question, re.IGNORECASE):
        start = re.split(r"[,:]|\bor\b", question, maxsplit=1, flags=re.IGNORECASE)[0]
        asked = start.rstrip().rpartition(" ")[0]  # "Is the ball red or blue?": red is an alternative as well
    return bool(right) and right <= said and said - right <= set(content_words(asked))


def raw_form(answer: str) -> str:
    """An answer in the form in which DAQUAR's are compared. Exactly: lower case; underscores are spaces; runs of spaces
    are one; full stops at the end go; the words a, an and the go; number words from zero to twenty are digits. Nothing
    else: a plural is not its singular, and other punctuation and word order count."""
    words = answer.lower().replace("_", " ").strip().rstrip(". ").split()
    return " ".join(NUMBERS.get(word, word) for word in words if word not in ARTICLES)


def is_raw_exact(answer: str, accepted: Iterable[str]) -> bool:
    """Whether the answer is one of the accepted ones, both in `raw_form`."""
    return raw_form(answer) in {raw_form(each) for each in accepted}


def number_in(answer: str) -> str:
    """The one number that an answer names, in digits; empty where it names none or several. "no" and "none" are 0."""
    words = re.findall(r"\w+", answer.lower())
    named = {NUMBERS.get(word, word) for word in words if word in NUMBERS or word.isdigit()}
    if not named and {"no", "none"} & set(words):
        named = {"0"}
    return named.pop() if len(named) == 1 else ""


def yes_or_no(answer: str) -> str:
    """ "yes", "no" or "": by the first word, else "no" where something is denied ("There is no dog.")."""
    words = normalise(answer).split() or [""]
    return YES_OR_NO.get(words[0], "no" if {"no", "not"} & set(words) else "")


def options_of(question: str) -> list[str]:
    """ "Is it a cat, a dog, a cow or a pig?" -> its four options; none where the wording is another."""
    found = next((match for form in CHOICES if (match := form.fullmatch(question.strip()))), None)
    return re.split(r", | or ", found[1]) if found else []


def chosen_option(answer: str, options: Sequence[str]) -> str:
    """The one option that the answer names; empty where it names none or several. "a hot dog" does not name "a dog"."""

    def holds(text: str, phrase: str) -> bool:
        return f" {to_keywords(phrase)} " in f" {to_keywords(text)} "

    named = [option for option in options if holds(answer, option)]
    named = [one for one in named if not any(one != other and holds(other, one) for other in named)]
    return named[0] if len(named) == 1 else ""


def repeats(answer: str) -> bool:
    """Whether three words in a row come again, or one word comes three times in a row."""
    words = re.findall(r"\w+", answer.lower())
    threes = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(threes)) < len(threes) or any(len(set(three)) == 1 for three in threes)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p that two systems are right equally often, given how many questions only the one and only the
    other has right (McNemar, 1947): a fair coin thrown for each of these."""
    thrown, fewer = only_first + only_second, min(only_first, only_second)
    return min(1.0, 2 * sum(math.comb(thrown, k) for k in range(fewer + 1)) / 2**thrown)


def names_one_of(answer: str, nouns: Iterable[str]) -> bool:
    """Whether the answer holds one of the nouns as a whole word or phrase, singular or plural."""
    words = f" {normalise(answer)} "
    return any(f" {form} " in words for noun in nouns for form in _forms(normalise(noun)))


def _forms(noun: str) -> set[str]:
    return {noun, f"{noun}s", f"{noun}es", noun.removesuffix("s"), noun.removesuffix("y") + "ies"}


def majority_answers(examples: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The most frequent answer to each question, as it was first written: the best that can be done without looking. ""
    for any question."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    written: dict[str, str] = {}
    for question, answer in examples:
        written.setdefault(normalise(answer), answer)
        counts[normalise(question)][normalise(answer)] += 1
        counts[""][normalise(answer)] += 1
    return {question: written[answers.most_common(1)[0][0]] for question, answers in counts.items()}
