"""Captions by people -> descriptions, short and long, what happens, and who or what is surely there.

In: several captions of one picture. Out: rows whose answer is one of them, with all of them as references. Those of the
sets in CLEANED were gathered from many hands and are cleaned; anybody else's stay as they are written.
Whether something is there is asked only of what people never leave out of a caption: yes where two of them name
it, no where none does.
"""

import random
import re
from collections.abc import Sequence

from training.picture import Row
from training.sources.index_lines import Known
from training.sources.presence import ask_balanced
from training.wording.phrases import sentence, singular
from training.wording.questions import DESCRIBE, DOING, HAPPENING, LONG, SHORT

CLEANED = {"flickr8k", "coco-train2017"}
CAPTIONS_ASKED = 3  # captions of a training picture that are answers of "Describe the picture."
SALIENT = {  # what people never leave out of a caption -> the words that name it
    "dog": "dog dogs puppy puppies greyhound poodle retriever terrier collie dalmatian dalmation labrador beagle",
    "person": "person people man men woman women boy boys girl girls child children kid kids baby toddler lady ladies guy "
    "guys adult adults player players rider skier skateboarder snowboarder surfer climber hiker crowd couple family "
    "runner swimmer biker bicyclist cyclist worker group team individual individuals male female males females "
    "someone teenager teenagers youth youths boarder skater wakeboarder kayaker rafter motorcyclist racer performer dancer "
    "spectators hockey football soccer bride musician singer band friends students toddlers infant teen teens gentleman "
    "pedestrian pedestrians hikers climbers cheerleaders cheerleader gymnast fisherman officer officers he she his her",
    "horse": "horse horses pony ponies", "cat": "cat cats kitten kittens",
    "bicycle": "bicycle bicycles bike bikes biker bikers cyclist cyclists bicyclist bicyclists cycling biking",
    "motorcycle": "motorcycle motorcycles motorbike motorbikes dirtbike motocross motorcyclist bike biker bikes bikers atv",
    "skateboard": "skateboard skateboards skateboarder skateboarders skateboarding skater",
    "surfboard": "surfboard surfboards surfer surfers surfing surf board",
    "snowboard": "snowboard snowboards snowboarder snowboarders snowboarding board",
    "guitar": "guitar guitars guitarist band",
    "kayak": "kayak kayaks kayaker kayakers kayaking canoe canoes boat boats raft",
    "frisbee": "frisbee frisbees disc disk toy", "swimming pool": "pool pools swim swims swimming swimmer water",
    "trampoline": "trampoline trampolines",
    "giraffe": "giraffe giraffes", "zebra": "zebra zebras", "elephant": "elephant elephants",
    "tent": "tent tents canopy camp camping", "umbrella": "umbrella umbrellas parasol",
}  # fmt: skip
HINTS = {  # words of SALIENT that only hint: they do not say yes, but they forbid no
    "bike", "bikes", "biker", "bikers", "board", "band", "boat", "boats", "raft", "canoe", "canoes", "disc", "disk", "toy",
    "water", "swim", "swims", "swimming", "swimmer", "camp", "camping", "canopy",
    "hockey", "football", "soccer", "he", "she", "his", "her", "group", "team", "couple", "family", "atv", "surf", "pools",
    "racer", "motocross",
}  # fmt: skip
SUBJECT = re.compile(
    r"(?:A|An|The|One) (?:[\w-]+ ){0,3}?(dog|man|woman|boy|girl|child|baby|person|cat|horse|toddler)(?: in [^,.]*?)? is "
    r"((?!being|wearing|standing next)\w+ing\b[^,.]*)\."
)
HAPPENS = re.compile(  # a caption that names no action does not say what is happening
    r"\b(?!build|din|liv|cloth|rail|ceil|even|morn|park|someth|noth|wedd|paint|w|k|bedd|draw|spr|interest|shopp|cross)\w+ing\b|"
    r"\b(?:jump|run|play|ride|walk|sit|stand|catch|climb|swim|leap|ski|hold|kick|throw|chase|fight|race|perform|paddle)e?s\b"
)
SEVERAL = re.compile(r"\b(?:two|three|four|five|several|many|group|crowd|couple|dogs|men|women|boys|girls|"
                     r"children|people|kids|another|other|horses|cats|family|others|babies)\b", re.I)  # fmt: skip


def clean(caption: str) -> str:
    """'a dog , running .' -> 'A dog, running.'; empty where it is broken off."""
    text = re.sub(r"\s+([.,;:!?'])", r"\1", " ".join(caption.split())).strip(" \"'-,;:")
    text = re.sub(r"\s*\(\s*|\s*\)\s*", " ", text).replace('"', "").replace(" n't", "n't")
    text = re.sub(r"\.{2,}|[.,;]+$", ".", re.sub(r"\s+", " ", text)).strip()
    body = text.rstrip(".!?")
    words = re.findall(r"[\w'-]+", body)
    broken = len(words) < 4 or len(words) > 40 or words[-1].lower() in BROKEN_OFF or not text.isascii()
    broken = broken or bool(re.search(r"\b(\w+) \1\b|[<>{}\[\]|_#@=]", body))
    return "" if broken else sentence(body)


BROKEN_OFF = set(
    "a an the of in on at with and or to by for from is are his her its their this that while as".split()
)


def usable(source: str, caption: str) -> str:
    """The caption as it is learned: of a set in CLEANED cleaned, or empty; of others with a capital and a stop."""
    text = " ".join(caption.split())
    return clean(text) if source in CLEANED or not text else sentence(text)


def left_out(source: str, known: Sequence[Known]) -> list[str]:
    """A clause for each caption that is not used."""
    return [
        f"{each.image}: a caption is left out, which is broken off, too short, too long or has odd signs: {caption[:60]!r}"
        for each in known
        for caption in each.captions
        if not usable(source, caption)
    ]


def ask(source: str, known: Sequence[Known], split: str) -> dict[str, list[Row]]:
    rows = {}
    named: dict[str, set[str]] = {}
    hinted: dict[str, set[str]] = {}
    for each in known:
        cleaned = tuple(dict.fromkeys(text for caption in each.captions if (text := usable(source, caption))))
        if not cleaned:
            continue
        rng = random.Random(f"captions {source}/{each.image}")
        rows[each.image] = caption_rows(cleaned, rng, split)
        judged = tuple(dict.fromkeys(text for caption in each.captions if (text := clean(caption))))
        if (
            judged and not each.boxes
        ):  # boxes know better; what the words of another language name is not known
            named[each.image], hinted[each.image] = mentioned(judged)
    for image, found in ask_balanced(named, f"captions {source} {split}", hinted, most=2).items():
        rows[image] += found
    return rows


def caption_rows(cleaned: Sequence[str], rng: random.Random, split: str) -> list[Row]:
    """Rows answered by one of the captions; a held-out picture is asked once for each kind."""
    references = tuple(cleaned)
    questions = rng.sample([question for question in DESCRIBE if question != DESCRIBE[0]], CAPTIONS_ASKED - 1)
    asked = [DESCRIBE[0], *questions] if split == "train" else [DESCRIBE[0]]
    drawn = rng.sample(cleaned, min(len(asked), len(cleaned)))
    rows = [("describe", question, caption) for question, caption in zip(asked, drawn, strict=False)]
    by_length = sorted(cleaned, key=lambda caption: len(caption.split()))
    if len(cleaned) > 2:
        rows.append(("describe", rng.choice(SHORT), by_length[0]))
        rows.append(("describe", rng.choice(LONG), by_length[-1]))
    happening = [caption for caption in cleaned if HAPPENS.search(caption)]
    if happening:
        rows.append(("action", rng.choice(HAPPENING), rng.choice(happening)))
    found = [Row(*row, accepted=(), references=references) for row in rows]
    return found + doing(cleaned, rng)


def doing(cleaned: Sequence[str], rng: random.Random) -> list[Row]:
    """'A dog is running in the grass.' -> what is the dog doing? It is running in the grass."""
    if any(SEVERAL.search(caption) for caption in cleaned):
        return []
    found = [match for caption in cleaned if (match := SUBJECT.fullmatch(caption))]
    if not found:
        return []
    who, what = rng.choice(found).groups()
    accepted = tuple(dict.fromkeys(match[2] for match in found))
    return [
        Row("action", rng.choice(DOING).format(x=who), sentence(f"the {who} is {what}"), accepted=accepted)
    ]


def mentioned(cleaned: Sequence[str]) -> tuple[set[str], set[str]]:
    """-> (what two captions name, what any of them may mean)."""
    words = [set(re.findall(r"[a-z]+", caption.lower())) for caption in cleaned]
    sure, maybe = set(), set()
    for name, listed in SALIENT.items():
        known = set(listed.split())
        count = sum(bool(each & (known - HINTS)) for each in words)
        sure |= {name} if count >= 2 else set()
        maybe |= {name} if any(each & (known | {singular(name)}) for each in words) else set()
    return sure, maybe
