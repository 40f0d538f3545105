"""A caption and what is in its picture -> the objects it names, and those it invents: CHAIR (Rohrbach et al., 2018).

The objects are COCO's 80, each found by its synonyms. One is invented when neither the picture's known objects nor any
human caption has it. CHAIR-i is the share of invented ones among all that are named, CHAIR-s the share of captions with at
least one. The synonyms are this project's own and fewer than the paper's, so figures are near those of papers, not equal.
"""

import re
from collections.abc import Iterable
from functools import cache

SYNONYMS = """
person: man, woman, boy, girl, child, kid, baby, toddler, lady, guy, gentleman, adult, teenager, youth, crowd, family,
player, rider, driver, worker, student, skier, surfer, skater, skateboarder, snowboarder, cyclist, bicyclist, biker,
batter, pitcher, catcher, umpire, chef, waiter, bride, groom, officer, policeman, fireman, soldier, cowboy, passenger,
tourist, pedestrian, mother, father, son, daughter, sister, brother, friend, athlete, runner, hiker, climber, swimmer,
performer, musician, dancer; bicycle: bike, tricycle; car: automobile, sedan, taxi, cab, suv, van, jeep, minivan; bus:
minibus; motorcycle: motorbike, scooter, moped, dirt bike, motor bike, motor cycle; train: locomotive, tram, trolley,
subway; airplane: plane, air plane, jet, aircraft, airliner, jetliner, biplane; truck: pickup, fire engine; boat:
ship, sailboat, canoe, kayak, ferry, yacht, rowboat, gondola; stop sign: ; parking meter: ; bench: pew; traffic light:
stoplight, street light, traffic signal, stop light; fire hydrant: hydrant; bird: pigeon, seagull, gull, duck, goose,
parrot, owl, eagle, hen, rooster, swan, sparrow, ostrich, peacock, penguin; cat: kitten, kitty; dog: puppy, pup,
poodle, terrier, retriever, bulldog, dachshund, greyhound; horse: pony, foal, stallion; sheep: lamb, ram, ewe; cow:
cattle, calf, bull, ox; elephant: ; bear: panda; zebra: ; giraffe: ; backpack: back pack, rucksack, knapsack;
umbrella: parasol; handbag: hand bag, purse; tie: necktie, bow tie; suitcase: suit case, luggage, briefcase; frisbee:
disc; skis: ski; snowboard: snow board; kite: ; skateboard: skate board; sports ball: ball, tennis ball, soccer ball,
beach ball; baseball bat: bat; baseball glove: glove, mitt; surfboard: surf board, boogie board; tennis racket: tennis
racquet, racket, racquet; bottle: ; wine glass: wineglass; cup: mug, teacup; fork: ; knife: ; spoon: ; bowl: ; banana:
; apple: ; sandwich: burger, hamburger, cheeseburger; orange: tangerine; broccoli: ; carrot: ; hot dog: hotdog; pizza:
; donut: doughnut, bagel; cake: cupcake, cheesecake; chair: armchair, arm chair, stool; couch: sofa, loveseat; bed:
bunk, cot; toilet: urinal, commode; potted plant: houseplant, house plant, plant pot; dining table: table, desk,
coffee table; tv: television, monitor; laptop: computer, laptop computer; mouse: ; remote: remote control, controller;
keyboard: ; microwave: ; toaster: ; cell phone: phone, cellphone, smartphone, telephone, mobile phone, smart phone;
oven: stove, stove top; sink: washbasin; refrigerator: fridge, freezer; book: ; clock: ; vase: ; scissors: ;
toothbrush: tooth brush; teddy bear: teddy, stuffed bear; hair drier: hair dryer, hairdryer, blow dryer
"""
# Compounds that hold a name of the list and are none of it.
OTHER_THINGS = """
home plate, train track, train station, bus stop, bus station, bus shelter, car seat, car park, dog house, dog park,
bird house, bird bath, bird feeder, ski lift, ski slope, ski pole, chair lift, orange juice, apple juice, toilet
paper, phone booth, pizza box, cake stand, knife block, boat dock, boat ramp, mouse pad, bench press
"""
IRREGULAR = dict(
    pair.split(":")
    for pair in """
    men:man women:woman children:child people:person persons:person knives:knife mice:mouse geese:goose calves:calf oxen:ox
    buses:bus skis:ski families:family puppies:puppy ladies:lady leaves:leaf wolves:wolf
    """.split()
)
# Of an animal or a vehicle: "a baby elephant", "an adult polar bear"
DESCRIBES = {"baby", "adult", "mother", "passenger", "driver"}
LONGEST = 3  # words in a name

Phrase = tuple[str, ...]


def objects_in(text: str) -> list[str]:
    """COCO's name of each object that the text mentions, in order; of names inside one another the longest counts."""
    words = _words(text)
    found, at = [], 0
    while at < len(words):
        name, length = _name_at(words, at)
        following = _name_at(words, at + 1)[0] or _name_at(words, at + 2)[0]
        described = name == "person" and words[at] in DESCRIBES and following not in ("", "person")
        coloured = words[at] == "orange" and bool(_name_at(words, at + 1)[0])
        if name and not described and not coloured:
            found.append(name)
        at += length
    return found


def invented(answer: str, objects: Iterable[str], references: Iterable[str]) -> tuple[list[str], list[str]]:
    """A caption, the names known to be in the picture and its human captions -> (objects named, those of them that are
    not there)."""
    there = {name for text in (*objects, *references) for name in objects_in(text)}
    named = objects_in(answer)
    return named, [name for name in named if name not in there]


def _name_at(words: list[str], at: int) -> tuple[str, int]:
    """The name that begins at a word, empty where none does, and how many words it takes."""
    for length in range(LONGEST, 0, -1):
        phrase = tuple(words[at : at + length])
        if len(phrase) == length and phrase in _table():
            return _table()[phrase], length
    return "", 1


@cache
def _table() -> dict[Phrase, str]:
    """Words of a synonym -> COCO's name; empty for OTHER_THINGS."""
    table = {tuple(_words(phrase)): "" for phrase in OTHER_THINGS.split(",")}
    for entry in SYNONYMS.split(";"):
        name, synonyms = (part.strip() for part in entry.split(":"))
        table |= {tuple(_words(each)): name for each in (name, *synonyms.split(",")) if each.strip()}
    return table


def _words(text: str) -> list[str]:
    return [_singular(word) for word in re.findall(r"[a-z]+", text.lower())]


def _singular(word: str) -> str:
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    if word.endswith("s") and len(word) > 3 and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
