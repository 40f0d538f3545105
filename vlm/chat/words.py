"""Text -> its words, and a word -> the form by which two texts are compared; pure functions.

The function words are NLTK's English stop words, written out because NLTK downloads them, less the
words that can be the whole answer to a question about a picture: negations, quantities and positions.
`base_form` takes off inflections only ("dogs", "sitting"), where a stemmer would also make a photographer a
photograph.
"""

import re
import unicodedata

FUNCTION_WORDS = frozenset(
    """
    i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her
    hers herself it its itself they them their theirs themselves what which who whom this that these those
    am is are was were be been being have has had having do does did doing a an the and but if or because
    as until while whilst of at by for with about against into through during before after to from in out on
    again further then once here there when where why how any each some such own so than too very can will
    just should now also would
    """.split()
)
NEGATIONS = frozenset({"no", "not", "nope"})
_COUNTING = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen twenty
    """.split()
_NUMBERS = {word: str(number) for number, word in enumerate(_COUNTING)}
_SAME_WORD = dict(
    pair.split(":")
    for pair in """
    men:man women:woman children:child people:person feet:foot teeth:tooth geese:goose mice:mouse
    leaves:leaf knives:knife wolves:wolf shelves:shelf scarves:scarf calves:calf loaves:loaf hooves:hoof
    wives:wife halves:half elves:elf thieves:thief lenses:lens gases:gas lying:lie tying:tie dying:die
    sat:sit stood:stand held:hold ran:run ate:eat wore:wear flew:fly swam:swim slept:sleep rode:ride
    earring:earrings grey:gray colour:color favourite:favorite jewellery:jewelry centre:center tyre:tire
    pyjamas:pajamas yep:yes yeah:yes nope:no
    """.split()
)
# Letters, digits, and the vowel signs of scripts whose letters alone are not whole words to `\w`.
_LETTER = r"(?:[^\W_]|[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0963\u0966-\u109f])"
_WORD = re.compile(
    rf"(?<!\w)-?\d+(?:[.,:]\d+)*(?!{_LETTER})"  # -5, 3.5, 10:30
    r"|(?<!\w)[^\W\d_](?:\.[^\W\d_])+\b"  # U.S., e.g.
    rf"|{_LETTER}+(?:'{_LETTER}+)*"
)
_CLITIC = re.compile(r"'(?:s|re|ve|ll|d|m)$")
_VOWEL = re.compile(r"[aeiouy]")
# A verb that lost its -e with its ending: mak(ing), danc(ing), driv, clos, freez, decorat, juggl. The first
# choice is one vowel between single consonants: a verb without an -e would have doubled the last of them.
_LOST_E = re.compile(r"(?:^[^aeiouy]*[aeiouy][^aeiouywx]|[cv]|[^s]s|[^z]z|[^aeiou]at|[^aeiourlw]l)$")


def words(text: str) -> list[str]:
    """The words as a person reads them, lower-cased, in order; "isn't" is "not", "dog's" is "dog"."""
    plain = unicodedata.normalize("NFC", text).replace("\u2019", "'")
    found = []
    for match in _WORD.finditer(plain):
        word = match[0].lower()
        if word.endswith("n't") or word == "cannot":
            word = "not"
        elif "." in word and not word[-1].isdigit():
            word = word.replace(".", "")
        found.append(_CLITIC.sub("", word))
    return found


def content_words(text: str) -> list[str]:
    """The words that carry the meaning, in order, as base forms for comparing: "two dogs" is ["2", "dog"]."""
    return [base_form(word) for word in words(text) if word not in FUNCTION_WORDS]


def to_keywords(text: str) -> str:
    """The text without function words and punctuation; where that is nothing ("It is."), all of its words, and where it
    has none ("?"), itself."""
    said = words(text)
    return " ".join([word for word in said if word not in FUNCTION_WORDS] or said) or text.strip()


def base_form(word: str) -> str:
    """The form in which "dogs" and "dog", "gray" and "grey", "two" and "2" are one word; not for reading."""
    word = _SAME_WORD.get(word, word)
    if word in _NUMBERS:
        return _NUMBERS[word]
    if word[-1:].isdigit():
        return word.replace(",", "")
    for ending in ("ing", "ed"):
        stem = word.removesuffix(ending)
        if stem != word and not word.endswith("eed") and len(stem) > 1 and _VOWEL.search(stem):
            word = _verb(stem)
    word = _singular(word) if len(word) > 3 else word
    word = re.sub(r"(?<=[^aeiou])y$|ie$", "i", word)  # cherries, cherry; cookies, cookie
    word = re.sub(r"oe$", "o", word)  # tomatoes, tomato
    return _SAME_WORD.get(word, word)


def _verb(stem: str) -> str:
    if re.search(r"([^aeioulsz])\1$", stem):
        return stem[:-1]  # sitt(ing)
    return stem + "e" if _LOST_E.search(stem) else stem


def _singular(word: str) -> str:
    if word.endswith(("sses", "shes", "ches", "xes", "zzes")) or re.search(r"(?<![ao])uses$", word):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is", "news")):
        return word[:-1]
    return word
