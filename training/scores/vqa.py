"""An answer and those that people gave -> how far they agree, as the VQA challenge scores it. Pure functions.

The normalisation is the official one (github.com/GT-Vision-Lab/VQA, vqaEval.py), step by step: its odd treatment of
punctuation is kept, since scores of papers depend on it.
"""

import re
from collections.abc import Sequence

PEOPLE = 10  # who answer each question of VQA; three of them make an answer right
ARTICLES = {"a", "an", "the"}
NUMBERS = {
    word: str(number)
    for number, word in enumerate("zero one two three four five six seven eight nine ten".split())
} | {"none": "0"}
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
    how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock
    oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd somebody'd've somebody'll somebody's someone'd
    someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
    where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
    y'all y'all'll y'all'd've you'd you'd've you'll you're you've
    """.split()
# A contraction with one of its apostrophes left out is the contraction.
SPELLED = {
    word[: mark.start()] + word[mark.end() :]: word
    for word in CONTRACTIONS
    for mark in re.finditer("'", word)
}


def official_form(answer: str) -> str:
    """Lower case; without articles and punctuation; numbers up to ten in digits; contractions with their apostrophes.
    "A dog-house, two." -> "dog house 2"."""
    words = [NUMBERS.get(word, word) for word in without_punctuation(answer.strip()).lower().split()]
    return " ".join(SPELLED.get(word, word) for word in words if word not in ARTICLES)


def without_punctuation(text: str) -> str:
    """A mark becomes a space; it goes without one where it stands beside a space anywhere in the text, and where the text
    has a comma between digits. A full stop before a digit stays."""
    joined = re.search(r"\d,\d", text)
    cleaned = text
    for mark in PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if beside_space or joined else " ")
    return re.sub(r"\.(?!\d)", "", cleaned)


def vqa_accuracy(answer: str, given: Sequence[str]) -> float:
    """VQA's agreement with the answers `given` by ten people: min(1, same answers / 3), averaged over all nine of ten
    (arXiv:1505.00468). Fewer than ten are one person's: each of them counts as agreed on."""
    said, answers = official_form(answer), [official_form(each) for each in given]
    if len(answers) < PEOPLE:
        return float(said in answers)
    same = sum(each == said for each in answers)
    return sum(min(1.0, (same - (each == said)) / 3) for each in answers) / len(answers)
