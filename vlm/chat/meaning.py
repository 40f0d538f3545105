"""A draft and a candidate to replace it -> whether the candidate says the same; pure functions.

A small model rewrites badly ("The picture is a dog wearing a white dog."), so the verdict errs on
the side of the draft. It compares words, with their inflections taken off, and knows no synonyms.
"""

import re
from collections import Counter
from typing import NamedTuple

from vlm.chat.words import FUNCTION_WORDS, NEGATIONS, base_form, words

WORDS_IN_REASON = 5
ARTICLES = frozenset({"a", "an", "the"})
# Words around an answer that say nothing about the picture.
_FRAME = re.compile(
    r"^\W*(?:(?:the|this) (?:picture|image|photo) (?:shows|depicts)\b|(?:i|we|you) (?:can )?see\b"
    r"|in (?:the|this) (?:picture|image|photo)\b|the answer is\b)",
    re.IGNORECASE,
)
_YES_OR_NO = re.compile(r"\s*(?:is|are|was|were|does|do|did|has|have|can|could|will|would)\b", re.IGNORECASE)
_OPENER = re.compile(  # "No, it is red." and, of keywords, "No no dog.", but not "No dog is red."
    r"\W*(?:(yes|yeah|yep)\b"
    r"|(?:no|nope)\b(?=\W*$|\s*[,.;:!\u2013\u2014]|\s-|\s+(?:it|he|she|they|this|that|there|no|not)\b))",
    re.IGNORECASE,
)
# Where one of these, or a verb in -ing, stands between two things, their order is part of the meaning.
_RELATIONS = frozenset(
    """
    in on at with by to from for of into through near beside behind above below under over between against
    """.split()
)
# Words of a question that need not come back in an answer that restates it.
_PICTURE_WORDS = frozenset(
    map(base_form, "picture image photo drawing here present shown show contain see tell true".split())
)


class _Claim(NamedTuple):
    opener: str  # "yes", "no" or ""
    negations: int  # "no" and "not" after the opener
    said: list[str]  # all words after the opener
    content: list[str]  # those of them that carry meaning, less the negations


def keeps_meaning(draft: str, candidate: str, question: str = "") -> tuple[bool, str]:
    """Whether `candidate` says what `draft` says, and a short reason where it does not.

    It has to keep every content word of the draft and may add those of the question; function words are free, but for
    the "and" of a list.
    """
    old, new = _claim(draft), _claim(candidate)
    reason = (
        _shape_reason(draft, candidate, question)
        or _polarity_reason(old, new)
        or _restatement_reason(old, new, question)
        or _content_reason(old, new, question)
        or _order_reason(old, new, loose="," in draft)
        or _dropped_reason(old, new)
    )
    return not reason, reason


def _claim(text: str) -> _Claim:
    text = _FRAME.sub("", text)
    opener = _OPENER.match(text)
    said = words(text[opener.end() :] if opener else text)
    content = [word for word in said if word not in FUNCTION_WORDS and word not in NEGATIONS]
    negations = sum(word in NEGATIONS for word in said)
    return _Claim(("yes" if opener[1] else "no") if opener else "", negations, said, content)


def _shape_reason(draft: str, candidate: str, question: str) -> str:
    length = len(words(candidate))
    if not length:
        return "is empty"
    if candidate.rstrip(" \n\"'").endswith("?") and not draft.rstrip(" \n\"'").endswith("?"):
        return "turns the answer into a question"
    if length > 2 * len(words(draft)) + min(len(words(question)), 20) + 12:
        return "is too long"
    return ""


def _polarity_reason(old: _Claim, new: _Claim) -> str:
    bare_no = old.opener == "no" and not old.said
    negations = old.negations
    if bare_no:  # "No." may become "No, it is not a dog." or "There is no dog.", but not "No, it is a dog."
        negations = 1 if new.said else 0
    if old.opener and new.opener and old.opener != new.opener:
        return f"changes {old.opener} to {new.opener}"
    if old.opener and not new.opener and not (bare_no and new.negations):
        return f'drops "{old.opener}"'
    if new.opener and not old.opener and not (new.opener == "no" and old.negations):
        return f'adds "{new.opener}"'
    if new.negations > negations:
        return 'adds a "not"'
    if new.negations < negations:
        return 'says "no" and then the opposite' if bare_no else 'drops a "not"'
    return ""


def _restatement_reason(old: _Claim, new: _Claim, question: str) -> str:
    """A bare yes or no may restate the question, but all of it: to "Is there a circle in the image?" not "No, there is no
    image." And nothing that is asked with a "not" is restated: too easily it turns into its opposite."""
    if not old.opener or old.said or not new.said:
        return ""
    asked = _claim(question)
    if asked.negations:
        return "restates a question that denies something"
    has = set(map(base_form, new.content))
    missing = [word for word in asked.content if base_form(word) not in has | _PICTURE_WORDS]
    return f'leaves out "{_list(missing)}"' if missing else ""


def _content_reason(old: _Claim, new: _Claim, question: str) -> str:
    had, has = Counter(map(base_form, old.content)), Counter(map(base_form, new.content))
    free = _addable(question, numbers=not old.content, confirmed=bool(old.opener))
    dropped = [word for word in old.content if base_form(word) not in has]
    added = [word for word in new.content if not had[base_form(word)] and not free[base_form(word)]]
    if dropped and added:
        return f'drops "{_list(dropped)}" and adds "{_list(added)}"'
    if dropped:
        return f'drops "{_list(dropped)}"'
    if added:
        return f'adds "{_list(added)}"'
    allowed = had + free
    repeated = [word for word in new.content if has[base_form(word)] > allowed[base_form(word)]]
    return f'repeats "{_list(repeated)}"' if repeated else ""


def _addable(question: str, numbers: bool, confirmed: bool) -> Counter[str]:
    """The question's words that may stand in the answer; of "Is the ball red or blue?" only "ball", and of "Is there a
    cat?" none unless the answer says yes or no: "Dog on a sofa." does not tell of it."""
    choice = re.search(r"\bor\b", question, re.IGNORECASE)
    if _YES_OR_NO.match(question) and not choice and not confirmed:
        return Counter()
    asked = re.split(r"[,:]|\bor\b", question, maxsplit=1, flags=re.IGNORECASE)[0] if choice else question
    found = _claim(asked).content
    bases = [base_form(word) for word in (found[:-1] if choice else found)]
    return Counter(base for base in bases if numbers or not base[-1].isdigit())


def _dropped_reason(old: _Claim, new: _Claim) -> str:
    """ "Two cats and a dog are playing." is not to become "Two cats. A dog playing.": words may be added to a draft, and
    articles change, but the draft keeps the rest of its words."""
    left = Counter(map(base_form, new.said))
    left.subtract(map(base_form, old.said))
    lost = [word for word in dict.fromkeys(old.said) if left[base_form(word)] < 0 and word not in ARTICLES]
    return f'drops "{_list(lost)}"' if lost else ""


def _order_reason(old: _Claim, new: _Claim, loose: bool) -> str:
    """ "A man on a horse" is not "a horse on a man", while "dog, brown" may become "a brown dog"."""
    related = any(word in _RELATIONS or word.endswith("ing") for word in old.said)
    bases = list(dict.fromkeys(map(base_form, old.content)))
    if not related and (loose or len(bases) <= 2):
        return ""
    has = list(map(base_form, new.content))
    places = [has.index(base) for base in bases]
    return "" if places == sorted(places) else "changes the order of the words"


def _list(found: list[str]) -> str:
    unique = list(dict.fromkeys(found))
    return ", ".join(unique[:WORDS_IN_REASON]) + (", ..." if len(unique) > WORDS_IN_REASON else "")
