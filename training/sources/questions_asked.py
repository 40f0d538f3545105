"""Questions that people asked of a picture. DAQUAR's are cleaned: clumsy English becomes plain, short answers sentences."""

import re
from collections.abc import Sequence

from training.picture import Row
from training.sources.index_lines import Known
from training.sources.nouns import is_countable, join, number, plural
from training.wording.colours import NAMED_COLOURS
from training.wording.phrases import is_plural, sentence, with_article
from vlm.chat.words import base_form, words

LONGEST = 25  # words of a question
CLEANED = "daquar"
SPELLING = {
    "refridgerator": "refrigerator", "refridgerators": "refrigerators", "excercise": "exercise", "fornt": "front",
    "cair": "chair", "hanged": "hung", "infront": "in front", "inbetween": "between", "matress": "mattress",
    "doorframe": "door frame", "grey": "gray", "colours": "colors", "colour": "color", "coloured": "colored",
    "bookshelfs": "bookshelves", "shelfs": "shelves", "centre": "center", "utentils": "utensils", "kichen": "kitchen",
    "mouses": "mice", "waht": "what", "wht": "what", "dinning": "dining", "tshirts": "T-shirts",
    "tshirtsg": "T-shirts", "tv": "TV", "scissor": "scissors", "dor": "door", "obejct": "object", "obects": "objects",
    "objetcs": "objects", "objcts": "objects", "seperate": "separate", "telivision": "television", "coffe": "coffee",
    "boquet": "bouquet", "chandlier": "chandelier", "jewelery": "jewelry", "accesories": "accessories",
    "leftside": "left side", "rightside": "right side",
}  # fmt: skip
REPLACED = [
    (r"\b(?:the|this) image ?\d+\b", "the picture"), (r"\bimage ?\d+\b", "the picture"), (r"\bdoor way\b", "doorway"),
    (r"\bnight stand\b", "nightstand"), (r"\bwhile wall\b", "white wall"), (r"\bthe the\b", "the"),
    (r"\bdecoration item", "decorative item"),
    (r"^what is number of\b", "what is the number of"), (r"^what is (colou?r|object|shape)\b", r"what is the \1"),
    (r"^what in on\b", "what is on"), (r"^what is (left|right) of\b", r"what is to the \1 of"),
    (r"^(how many [\w ]+) (?:found|present|visible)\?$", r"\1 are there?"), (r"\bglass ware\b", "glassware"),
    (r"\b(in front|to the left|to the right|on top|in back) of (?!the\b|a\b|an\b|it\b|them\b|each\b)", r"\1 of the "),
    (r"^what colou?rs? is\b", "what color is"), (r"^what (left|right) to\b", r"what is \1 to"),
    (r"^what (in|on) the\b", r"what is \1 the"),
    (r"^what (object|thing) found\b", r"what \1 is found"), (r"^what are the (object|thing)\b", r"what are the \1s"),
    (r"\b(side|corner|middle|portion|left|right|front|top|bottom|center) of\?$", r"\1 of the picture?"), (r"\s+of\?$", "?"),
    (r"\b(object|thing) are\b", r"\1s are"),
]  # fmt: skip
HOW_MANY = re.compile(
    r"^how many ((?:[\w-]+ ){0,3}?)([\w-]+)( are there| is there| are| is| can| do| in| on| near| of| hung| found)\b"
)
UNCOUNTED = {"paper", "furniture", "clothing", "tissue", "food", "water", "toilet paper", "glassware",
"crockery", "wood", "stationery",
             "luggage", "cutlery", "cloth", "garbage", "hand wash", "foil", "ice", "carpet flooring", "soap",
             "equipment"}  # fmt: skip


def ask(source: str, known: Sequence[Known], split: str) -> dict[str, list[Row]]:
    rows = {}
    for each in known:
        asked: dict[str, Row] = {}
        for question, answer in each.questions:
            row = cleaned(question, answer) if source == CLEANED else as_written(question, answer)
            if row:
                asked.setdefault(row.question, row)
        rows[each.image] = list(asked.values())
    return rows


def as_written(question: str, answer: str) -> Row:
    """Somebody's own question with its answer, of which nothing changes but the first letter and the stop."""
    bare = answer.strip().rstrip(".!").lower()
    first = words(answer)[:1]
    if first in (["yes"], ["no"]):
        task = first[0]
    elif bare in COLOURS:
        task = "colour"
    else:
        task = "count" if base_form(bare).isdigit() else "vqa"
    return Row(task, question.strip(), sentence(answer.strip()), accepted=(bare,))


def cleaned(question: str, answer: str) -> Row | None:
    """None where it is not worth asking."""
    question = clean_question(question)
    parts = [clean_answer(part) for part in answer.replace("_", " ").split(",") if part.strip()]
    if not parts or not all(parts) or not 2 < len(question.split()) <= LONGEST:
        return None
    raw = [part.strip().lower() for part in answer.replace("_", " ").split(",")]
    accepted = tuple(dict.fromkeys([part for pair in zip(parts, raw, strict=True) for part in pair]))
    asks_colour = bool(re.search(r"\bcolou?r", question, re.I)) and all(part in COLOURS for part in parts)
    if parts[0].isdigit() and len(parts) == 1:
        said = number(int(parts[0])) if parts[0] != "0" else "none"
        return Row("count", question, sentence(said), accepted=(said, parts[0]))
    if asks_colour or parts in (["yes"], ["no"]):
        return Row("colour" if asks_colour else parts[0], question, sentence(join(parts)), accepted=accepted)
    if len(parts) == 1 and len(answer.split()) > 6:
        return Row("vqa", question, sentence(answer), accepted=accepted)
    if (
        len(parts) == 1
        and question.startswith("What are ")
        and is_countable(parts[0])
        and parts[0] not in UNCOUNTED
    ):
        parts = [plural(parts[0])]
        accepted = tuple(dict.fromkeys([*parts, *accepted]))
    return Row("vqa", question, sentence(join([thing(part) for part in parts])), accepted=accepted)


COLOURS = {*NAMED_COLOURS, "cream", "beige", "maroon", "violet", "golden", "gold", "silver", "dark brown",
"light brown", "light blue",
           "dark blue", "light green", "dark green", "light pink", "ivory", "navy blue", "light yellow",
           "dark red", "tan"}  # fmt: skip


def clean_question(text: str) -> str:
    """'how many sofa are in image10?' -> 'How many sofas are in the picture?'"""
    text = " ".join(text.replace("_", " ").split()).rstrip(" ?.")
    text = " ".join(SPELLING.get(word, word) for word in text.split()) + "?"
    for pattern, replacement in REPLACED:
        text = re.sub(pattern, replacement, text)
    found = HOW_MANY.match(text)
    if found and not is_plural(found[2]) and found[2] not in ("number", "of"):
        start, end = found.span(2)
        text = text[:start] + plural(found[2]) + text[end:]
    text = re.sub(r"\b(are|is) \1\b", r"\1", text)
    text = re.sub(r"^(how many .*) is\b", r"\1 are", text) if found else text
    text = re.sub(r"^(how many [\w -]+) are\?$", r"\1 are there?", text)
    return text[:1].upper() + text[1:]


def clean_answer(text: str) -> str:
    words = " ".join(SPELLING.get(word, word) for word in text.lower().split())
    for pattern, replacement in REPLACED:
        words = re.sub(pattern, replacement, words)
    return words


def thing(noun: str) -> str:
    """lamp -> a lamp; books -> books; paper -> paper."""
    if noun.isdigit() or noun in UNCOUNTED or noun in COLOURS:
        return noun
    phrase = with_article(noun.replace("dvd", "DVD").replace("cd ", "CD "))
    return phrase.removeprefix("some ")
