"""Classes with their share of a picture -> kind of place, indoors or not, is there, what covers most, where.

In: classes as ADE20K names them: no counts, and a centre for all regions of a class together, so that a side is clear
only far from the middle.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from training.picture import Row
from training.sources.balance import Candidate, cap, even_out
from training.sources.boxes import side_row
from training.sources.index_lines import Known, Region
from training.sources.nouns import UNCOUNTED, UNIQUE, everyday, is_countable, join, noun_phrase
from training.sources.places import is_indoors, place_of
from training.sources.presence import ask_balanced
from training.sources.taken_for import taken_for
from training.wording.phrases import sentence
from training.wording.questions import (
    COVERS,
    DESCRIBE,
    HEIGHT,
    IN_OR_OUT,
    IS_INDOORS,
    IS_OUTDOORS,
    LIST_THINGS,
    PLACE,
)

CLEAR = 0.006  # of the picture's area
BACKGROUND = {"wall", "floor", "ceiling"}  # nobody asks whether there is one
SURFACES = BACKGROUND | UNIQUE | UNCOUNTED | {
    "road", "sidewalk", "path", "field", "mountain", "hill", "building", "tree", "railing", "fence", "rug", "river", "lake",
}  # fmt: skip
IMPLIED = {  # parts that the name of a place says already
    "a street": {"road", "building", "sidewalk"}, "a road": {"road", "ground"}, "a field": {"field", "grass", "ground"},
    "a mountain landscape": {"mountain", "hill", "rock"}, "a beach": {"sand", "sea", "water"},
    "a forest": {"tree", "plant"},
    "a city": {"skyscraper", "building"}, "a staircase": {"stairs", "stairway", "banister"},
    "an airport": {"runway", "road"},
    "a swimming pool": {"water"}, "a waterfall": {"water"},
}  # fmt: skip
# Rarely alone
MANY = {"tree": "trees", "flower": "flowers", "book": "books", "plant": "plants", "rock": "rocks"}
MOST_OF_ONE_ANSWER = 0.15


class Scene(NamedTuple):
    image: str
    regions: dict[str, Region]  # by everyday name, the largest first
    rng: random.Random

    @property
    def shares(self) -> dict[str, float]:
        return {name: region.share for name, region in self.regions.items()}


def ask(source: str, known: Sequence[Known], split: str) -> dict[str, list[Row]]:
    scenes = [see(source, each) for each in known if each.regions]
    rows: dict[str, list[Row]] = defaultdict(list)
    seed = f"regions {source} {split}"
    present = {
        scene.image: {name for name, share in scene.shares.items() if share >= CLEAR}
        - BACKGROUND
        - {"ground"}
        for scene in scenes
    }
    asked = {name for names in present.values() for name in names}
    maybe = {scene.image: taken_for(scene.regions, asked) for scene in scenes}
    for image, found in ask_balanced(present, seed, maybe, most=3).items():
        rows[image] += found
    kinds = [
        [c for scene in scenes for c in maker(scene)] for maker in (side, height, indoors, place, covering)
    ]
    sides, heights, doors, places, coverings = kinds
    chosen = [even_out(sides, seed), even_out(heights, seed), even_out(doors, seed)]
    chosen += [cap(places, MOST_OF_ONE_ANSWER, seed), cap(coverings, MOST_OF_ONE_ANSWER, seed)]
    for candidate in (candidate for found in chosen for candidate in found):
        rows[candidate.image].append(candidate.row)
    for scene in scenes:
        objects = tuple(sorted(scene.regions))
        rows[scene.image] = [row._replace(objects=objects) for row in rows[scene.image] + told(scene)]
    return rows


def see(source: str, known: Known) -> Scene:
    found: dict[str, list[Region]] = defaultdict(list)
    for region in known.regions:
        if name := everyday(region.name, source):
            found[name].append(region)
    merged = {name: merge(name, regions) for name, regions in found.items()}
    ordered = dict(sorted(merged.items(), key=lambda pair: -pair[1].share))
    return Scene(known.image, ordered, random.Random(f"regions {source}/{known.image}"))


def merge(name: str, regions: Sequence[Region]) -> Region:
    """Two classes that people call the same are one region."""
    share = sum(region.share for region in regions) or 1e-6
    x = sum(region.share * region.x for region in regions) / share
    y = sum(region.share * region.y for region in regions) / share
    return Region(name, share, x, y)


def side(scene: Scene) -> list[Candidate]:
    found = []
    for name, region in small_things(scene):
        where = "left" if region.x < 0.27 else "right" if region.x > 0.73 else ""
        if where:
            found.append(Candidate(scene.image, name, where, side_row(f"the {name}", where, scene.rng)))
    return found


def height(scene: Scene) -> list[Candidate]:
    found = []
    for name, region in small_things(scene):
        where = "top" if region.y < 0.25 else "bottom" if region.y > 0.75 else ""
        if where:
            question = scene.rng.choice(HEIGHT).format(a=f"the {name}")
            answer = (
                f"In the {'upper' if where == 'top' else 'lower'} part."
                if "part" in question
                else f"At the {where}."
            )
            accepted = (where, f"at the {where}", answer.rstrip(".").lower())
            found.append(
                Candidate(scene.image, name, where, Row("where", question, answer, accepted=accepted))
            )
    return found


def small_things(scene: Scene) -> list[tuple[str, Region]]:
    return [
        (name, region)
        for name, region in scene.regions.items()
        if CLEAR < region.share < 0.2 and name not in SURFACES and is_countable(name) and name not in MANY
    ]


def indoors(scene: Scene) -> list[Candidate]:
    """Inside or outside, where the classes say so, as a choice and as a question of yes or no."""
    inside = is_indoors(scene.shares)
    if inside is None:
        return []
    answer = "indoors" if inside else "outdoors"
    choice = Row("scene", scene.rng.choice(IN_OR_OUT), sentence(answer), accepted=(answer,))
    asked_inside = scene.rng.random() < 0.5
    task = "yes" if asked_inside == inside else "no"
    question = scene.rng.choice(IS_INDOORS if asked_inside else IS_OUTDOORS)
    said = f"{task.capitalize()}, it is {answer}."
    polar = Row(task, question, said, accepted=(task,))
    return [Candidate(scene.image, "or", answer, choice), Candidate(scene.image, asked_inside, answer, polar)]


def place(scene: Scene) -> list[Candidate]:
    found = place_of(scene.shares)
    if not found:
        return []
    bare = found.split(" ", 1)[1]
    row = Row("scene", scene.rng.choice(PLACE), sentence(found), accepted=(bare, found))
    return [Candidate(scene.image, "place", found, row)]


def covering(scene: Scene) -> list[Candidate]:
    (first, share), *others = [*scene.shares.items(), ("", 0.0)]
    if share < 0.3 or share < 1.5 * others[0][1]:
        return []
    answer = MANY.get(first) or (
        f"the {first}" if first in SURFACES and first != "building" else noun_phrase(first)
    )
    row = Row(
        "which", scene.rng.choice(COVERS), sentence(answer), accepted=tuple(dict.fromkeys((first, answer)))
    )
    return [Candidate(scene.image, "covers", first, row)]


def told(scene: Scene) -> list[Row]:
    """What is there, the largest first, in a list or in a description of the place."""
    names = [name for name, share in scene.shares.items() if share >= 0.012 and name not in BACKGROUND]
    things = [things_called(name) for name in names[:5]]
    rows = []
    if len(things) > 1:
        accepted = tuple(names[:5])
        rows.append(Row("vqa", scene.rng.choice(LIST_THINGS), sentence(join(things)), accepted=accepted))
    found = place_of(scene.shares)
    names = [name for name in names if name != "cushion" or "pillow" not in names]
    things = [things_called(name) for name in names]
    inside = [
        thing
        for name, thing in zip(names, things, strict=False)
        if name not in (found or "") and name not in IMPLIED.get(found, set()) | {"sky"}
    ][:3]
    if found and inside:
        description = sentence(f"{found} with {join(inside)}")
        rows.append(
            Row("describe", scene.rng.choice(DESCRIBE), description, accepted=(found.split(" ", 1)[1],))
        )
    return rows


def things_called(name: str) -> str:
    return f"some {MANY[name]}" if name in MANY else noun_phrase(name)
