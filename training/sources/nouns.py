"""Class names of photograph sets -> nouns with their articles and plurals, as people say them."""

from collections.abc import Sequence

from training.wording.phrases import inflector, is_plural, with_article
from training.wording.words import COUNTING, PAIRS

CLASSED = {"coco", "coco-train2017", "ade20k"}  # sets whose classes NAMES and NOT_NAMED are made for
NAMES = {  # class -> what people say
    "sports ball": "ball", "tv": "TV", "hair drier": "hair dryer", "mouse": "computer mouse", "remote": "remote control",
    "windowpane": "window", "signboard": "sign", "earth": "ground", "ashcan": "trash can", "minibike": "motorcycle",
    "plaything": "toy", "hood": "range hood", "blind": "window blind", "apparel": "clothes", "crt screen": "screen",
    "washer": "washing machine", "buffet": "sideboard", "palm": "palm tree", "conveyer belt": "conveyor belt",
    "bannister": "banister", "sconce": "wall lamp", "television": "TV", "monitor": "computer monitor",
}  # fmt: skip
NOT_NAMED = {
    "trade name", "base", "case", "hovel", "land", "tank", "canopy", "bar", "booth", "grandstand", "stage", "step",
}  # fmt: skip
UNCOUNTED = {"grass", "water", "sand", "food", "broccoli"}
PLURALS = {"stairs", "clothes", "skis"}
UNIQUE = {"sky", "sea", "ground"}
NUMBERS = ["no", *COUNTING[1:]]
EXACT = 6  # a longer row of things is "many"


def everyday(name: str, source: str) -> str:
    """'windowpane' -> 'window', empty for what nobody would ask about: of the sets in CLASSED, whose name `source` begins
    with. Anybody else's names are what they call things."""
    name = " ".join(name.replace("_", " ").split())
    if source.partition(" ")[0] not in CLASSED:
        return name
    return "" if name.lower() in NOT_NAMED else NAMES.get(name.lower(), name)


def noun_phrase(noun: str) -> str:
    """dog -> a dog; grass -> grass; stairs -> some stairs; sky -> the sky."""
    if noun in UNIQUE:
        return f"the {noun}"
    return noun if noun in UNCOUNTED else f"some {noun}" if noun in PLURALS else with_article(noun)


def is_countable(noun: str) -> bool:
    return noun not in UNIQUE | UNCOUNTED | PLURALS and noun.split()[-1] not in PAIRS and not is_plural(noun)


def plural(noun: str) -> str:
    return "TVs" if noun == "TV" else inflector().plural_noun(noun) or noun


def number(count: int) -> str:
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def several(noun: str, count: int) -> str:
    """1 dog -> a dog; 3 dogs -> three dogs; 9 dogs -> many dogs."""
    if count == 1 or not is_countable(noun):
        return noun_phrase(noun)
    return f"{number(count) if count <= EXACT else 'many'} {plural(noun)}"


def join(phrases: Sequence[str], word: str = "and") -> str:
    """a, b, c -> 'a, b and c'"""
    return f" {word} ".join([", ".join(phrases[:-1]), phrases[-1]]) if len(phrases) > 1 else phrases[0]
