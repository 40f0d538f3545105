"""Emoji: about a thousand concepts, each drawn in several styles, which is what teaches the concept.

In: emojibase-data for labels and subgroups, and one extracted package for each style. Out: one picture for
each concept and style. Packages name their files differently (with or without FE0F, by code point
or by name); flags, symbols, gendered and skin-tone variants, hands and clock faces are left out, as are
labels of which no noun phrase is made.
"""

import json
import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from PIL import Image

from training.picture import Picture, open_raster, render_svg
from training.wording.phrases import with_article

SUBGROUPS = {
    "animal-mammal": "mammal", "animal-bird": "bird", "animal-amphibian": "reptile",
    "animal-reptile": "reptile", "animal-marine": "sea animal", "animal-bug": "insect",
    "plant-flower": "flower", "plant-other": "plant", "food-fruit": "fruit", "food-vegetable": "vegetable",
    "food-prepared": "food", "food-asian": "food", "food-sweet": "food", "drink": "drink",
    "dishware": "dishes", "place-map": "place", "place-geographic": "place", "place-building": "building",
    "place-religious": "building", "place-other": "place", "transport-ground": "vehicle",
    "transport-water": "vehicle", "transport-air": "vehicle", "hotel": "household", "time": "household",
    "sky-weather": "sky", "event": "season", "award-medal": "sport", "sport": "sport", "game": "game",
    "arts-crafts": "household", "clothing": "clothing", "sound": "electronics", "music": "electronics",
    "musical-instrument": "music", "phone": "electronics", "computer": "electronics",
    "light-video": "electronics", "book-paper": "office", "money": "other", "mail": "office",
    "writing": "office", "office": "office", "lock": "household", "tool": "tool", "science": "science",
    "medical": "medical", "household": "household", "other-object": "other", "face-smiling": "face",
    "face-affection": "face", "face-tongue": "face", "face-hand": "face", "face-neutral-skeptical": "face",
    "face-sleepy": "face", "face-unwell": "face", "face-hat": "face", "face-glasses": "face",
    "face-concerned": "face", "face-negative": "face", "face-costume": "face", "cat-face": "face",
    "heart": "symbol", "body-parts": "body", "person": "person", "person-role": "person",
    "person-fantasy": "person", "person-activity": "action", "person-sport": "action",
    "person-resting": "action",
}  # fmt: skip
UNWANTED = re.compile(
    r":|⊛|keycap|^(?:wo)?m[ae]n |^(?:wo)?men |o’clock|thirty|Mx |levitating|bunny ears|on the floor|NO$|"
    r"OK$|^\d|\d(?:st|nd|rd)|fluttering|speaker|joker|mahjong|flower playing|suit$|chart|hammer and|DVD|"
    r"dvd|dna|x-ray|departure|arrival|letter$|ceremony|exploding|melting|without|not done|front-facing|"
    r"pouring|^mate$|^oden$|low battery|with slash|performing|tilted right|exclamation|incoming|"
    r"with arrow|hundred|heart on|mending|growing|revolving|sparkling|beating|decoration|bubbles|tipping|"
    r"two hearts|^locked with|with wings|crossbones|^metro|score$|pregnant|hot springs|landslide|cooking|"
    r"construction|wedding|level|knobs|foggy|^night|breast|feeding|link$|trackball|bullseye|rosette|"
    r"hole$|funeral|coffin|index dividers|cityscape|sunrise over|kaaba|hamsa|nazar|moai|landline|cyclone|"
    r"pager|oncoming|head shaking|distorted|biting|tongue$|palm|savoring|star-struck|two-hump"
)
NAMES = {
    "dog face": "dog", "cat face": "cat", "monkey face": "monkey", "tiger face": "tiger", "horse face": "horse",
    "cow face": "cow", "pig face": "pig", "mouse face": "mouse", "rabbit face": "rabbit", "dragon face": "dragon",
    "honeybee": "bee", "lady beetle": "ladybug", "spouting whale": "whale", "baby chick": "chick",
    "automobile": "car", "kiwi fruit": "kiwi", "ear of corn": "corn", "poultry leg": "chicken leg",
    "fire engine": "fire truck", "sauropod": "dinosaur", "T-Rex": "dinosaur", "meat on bone": "meat on a bone",
    "hourglass done": "hourglass", "locked": "padlock", "unlocked": "open padlock", "tennis": "tennis ball",
    "bowling": "bowling ball", "billed cap": "cap", "headphone": "headphones", "articulated lorry": "truck",
    "sport utility vehicle": "car", "pool 8 ball": "pool ball", "game die": "die",
    "magnifying glass tilted left": "magnifying glass", "snowman without snow": "snowman",
    "baguette bread": "baguette", "wrapped gift": "gift", "man’s shoe": "shoe", "woman’s sandal": "sandal",
    "woman’s boot": "boot", "woman’s hat": "hat", "woman’s clothes": "blouse", "high voltage": "lightning bolt",
    "deciduous tree": "tree", "rescue worker’s helmet": "helmet", "optical disk": "compact disc",
    "hot beverage": "cup of coffee", "blowfish": "pufferfish", "thong sandal": "sandal",
    "horse racing": "jockey on a horse", "tangerine": "orange", "closed mailbox with raised flag": "mailbox",
    "ping pong": "table tennis racket", "badminton": "badminton racket", "ice hockey": "ice hockey stick",
    "field hockey": "field hockey stick", "lacrosse": "lacrosse stick", "cricket game": "cricket bat",
    "globe showing Americas": "globe", "globe showing Europe-Africa": "globe",
    "globe showing Asia-Australia": "globe", "camping": "tent", "national park": "park",
    "person in steamy room": "person in a sauna", "curry rice": "curry and rice", "cooked rice": "bowl of rice",
}  # fmt: skip
FULL_PHRASES = {
    "person biking": "a person riding a bicycle", "person golfing": "a person playing golf",
    "person rowing boat": "a person rowing a boat", "person bouncing ball": "a person bouncing a ball",
    "person getting haircut": "a person getting a haircut", "person taking bath": "a person taking a bath",
    "person getting massage": "a person getting a massage",
    "person mountain biking": "a person riding a mountain bike", "luggage": "a suitcase",
    "beach with umbrella": "a beach with an umbrella", "mount fuji": "a snowy mountain", "Tokyo tower": "a tower",
    "person in lotus position": "a person meditating", "sun with face": "the sun", "metro": "a metro train",
    "people wrestling": "two people wrestling", "clinking glasses": "two clinking glasses",
    "clinking beer mugs": "two clinking beer mugs", "fork and knife": "a fork and a knife",
    "crossed swords": "two crossed swords", "fork and knife with plate": "a plate with a fork and a knife",
}  # fmt: skip
OTHER_GROUPS = {  # where a label does not belong to its subgroup's category
    "place": "motorway|railway track|station|bus stop|fuel pump|horizontal traffic light|"
    "vertical traffic light|stop sign|fountain",
    "other": "brick|rock|wood|pile of poo|ghost|alien|alien monster|robot|skull|ogre|goblin|dagger|bomb|"
    "shield|wheel|bow and arrow|crossed swords|empty nest|nest with eggs|feather|wing|paw prints|pig nose|"
    "spider web|microbe|oil drum|police car light|magnet|boomerang|parachute|satellite|anchor|ring buoy|"
    "seat|dragon|dragon face|unicorn|phoenix|flying saucer",
    "household": "lipstick|hair pick|prayer beads|ring|gem stone|baby bottle|syringe",
    "game": "roller skate|kick scooter|skateboard",
}  # fmt: skip
GROUP_OF_LABEL = {label: group for group, labels in OTHER_GROUPS.items() for label in labels.split("|")}
Loader = Callable[[], Image.Image]
Finder = Callable[[Path, str, str], Loader | None]  # package folder, code points, label


def read(labels: Path, style: str, folder: Path) -> list[Picture]:
    """Folder of emojibase-data, a style's name and folder -> pictures."""
    finder = STYLES[style]
    pictures = []
    for code, label, phrase, group in list_concepts(labels / "package"):
        load = finder(folder / "package", code, label)
        if load:
            path = f"emoji/{style}/{code.lower()}"
            action = phrase.removeprefix("a person ") if group == "action" else ""
            action = action if action.split(" ")[0].endswith("ing") else ""
            kind = "render" if style == "fluent-3d" else "drawing"
            pictures.append(Picture(path, "emoji", style, kind, load, phrase, group, action))
    return pictures


def list_concepts(folder: Path) -> list[tuple[str, str, str, str]]:
    """-> (code points, label, phrase with its article, group)"""
    names = json.loads((folder / "meta" / "groups.json").read_text())["subgroups"]
    concepts = []
    for entry in json.loads((folder / "en" / "data.json").read_text()):
        label = entry["label"]
        group = SUBGROUPS.get(names.get(str(entry.get("subgroup")), ""))
        group = GROUP_OF_LABEL.get(label, group) if group else None
        if group and not UNWANTED.search(label) and label not in ("family", "kiss"):
            name = NAMES.get(label, label).replace("’", "'")
            concepts.append((entry["hexcode"], label, FULL_PHRASES.get(label) or with_article(name), group))
    return concepts


def file_names(code: str) -> list[str]:
    """'2764-FE0F' -> the ways packages write it."""
    code = code.lower()
    return list(dict.fromkeys([code, code.replace("-fe0f", ""), f"{code}-fe0f"]))


def find_file(suffix: str, subfolder: str, folder: Path, code: str, label: str) -> Loader | None:
    for name in file_names(code):
        path = folder / subfolder / f"{name}{suffix}"
        if path.exists():
            return partial(render_svg if suffix == ".svg" else open_raster, path)
    return None


def find_icon(folder: Path, code: str, label: str) -> Loader | None:
    """One of Iconify's icon sets: a JSON of SVG bodies, and one from code points to names."""
    icons, names = open_icons(folder)
    name = next((names[n] for n in file_names(code) if n in names), slug(label))
    name = icons.get("aliases", {}).get(name, {}).get("parent", name)
    return partial(load_icon, icons, name) if name in icons["icons"] else None


def slug(label: str) -> str:
    """'fire engine' -> 'fire-engine', as the icon sets without code points name it"""
    return re.sub(r"[^a-z0-9]+", "-", label.lower().replace("’", "")).strip("-")


@cache  # an icon set is a few megabytes of JSON
def open_icons(folder: Path) -> tuple[dict, dict]:
    icons, names = (json.loads((folder / name).read_text()) for name in ("icons.json", "chars.json"))
    return icons, names


def load_icon(icons: dict, name: str) -> Image.Image:
    icon = icons["icons"][name]
    sizes = {"left": 0, "top": 0, "width": 16, "height": 16}
    box = [icon.get(key, icons.get(key, default)) for key, default in sizes.items()]
    namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return render_svg(f'<svg {namespaces} viewBox="{" ".join(map(str, box))}">{icon["body"]}</svg>')


STYLES: dict[str, Finder] = {
    "fluent-3d": partial(find_file, ".webp", "assets"),
    "twemoji": partial(find_file, ".svg", ""),
    "noto": find_icon,
    "openmoji": find_icon,
    "noto-v1": find_icon,
    "emojione-v1": find_icon,
}
