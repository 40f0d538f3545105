"""Tux Paint stamps: photographs cut out of their background, and drawings, each with a sentence.

In: the extracted Debian package. Out: one picture for each captioned stamp that names a thing.
Whether a stamp is a photograph is not written anywhere. SVGs and everything under a `cartoon` folder are
drawings, and so are the PNGs listed in DRAWN, found by looking at all 377 candidates. Captions that are no
noun phrase ("Eat your broccoli!") are put right by hand in CAPTIONS; the others of that kind are left out.
"""

import re
from functools import partial
from pathlib import Path

from training.picture import Picture, open_raster, render_svg

FOLDERS = {  # the longest matching prefix wins -> words.GROUPS
    "animals/birds": "bird", "animals/fish": "sea animal", "animals/insects": "insect",
    "animals/lizards": "reptile", "animals/amphibians": "reptile", "animals/shellfish": "sea animal",
    "animals/mammals/aquatic": "sea animal", "animals": "mammal",
    "animals/mammals/bears/cartoon/teddy": "game", "clothes": "clothing", "food/fruit": "fruit",
    "food/vegetables": "vegetable", "food": "food", "hobbies/music": "music", "hobbies": "household",
    "household/arttools": "office", "household/dishes": "dishes", "household/electronics": "electronics",
    "household/tools": "tool", "household": "household", "medical": "medical", "military/vehicles": "vehicle",
    "military": "other", "people/body_parts": "body", "people": "person", "plants/flowers": "flower",
    "plants": "plant", "seasonal": "season", "space": "sky", "sports": "sport", "town/houses": "building",
    "town/monuments": "place", "animals/mammals/bears/toys": "game", "town": "place", "vehicles": "vehicle",
    "symbols": "symbol", "naturalforces": "other",
}  # fmt: skip
NOT_PHOTOGRAPHS = {"cartoon", "symbols", "roadsigns", "flags", "planets", "faces", "naturalforces"}
DRAWN = set(
    """animals/mammals/hedgehog animals/insects/fly clothes/button clothes/t_baseballcap clothes/t_glove
    clothes/t_jacket clothes/t_pants clothes/t_poloshirt clothes/t_scarf clothes/t_shirt clothes/t_sock
    clothes/t_tshirt food/pizza food/nuts/walnut_shelled medical/tooth people/body_parts/eye
    household/dishes/mug seasonal/christmas/Santa seasonal/christmas/bow seasonal/christmas/hard_candy
    seasonal/christmas/santahat seasonal/christmas/star seasonal/christmas/stocking
    seasonal/christmas/tree seasonal/christmas/xmas_tp_bulb seasonal/easter/bluebird
    seasonal/easter/bunny-egg seasonal/easter/bunny-head seasonal/easter/bunny seasonal/easter/butterfly
    seasonal/easter/chick-hatched seasonal/easter/chick-in-egg seasonal/easter/chick
    seasonal/easter/daffodil seasonal/easter/wrapped_chocolate_easter_egg
    seasonal/easter/wrapped_chocolate_easter_egg_2 seasonal/halloween/bat_left seasonal/halloween/blackcat
    seasonal/halloween/spider seasonal/hanukkah/dreydl seasonal/hanukkah/dreydl-gimmel
    seasonal/hanukkah/dreydl-hay seasonal/hanukkah/dreydl-nun seasonal/hanukkah/dreydl-shin
    seasonal/hanukkah/holiday_candle seasonal/hanukkah/menorah seasonal/newyears/confetti
    seasonal/newyears/fireworks seasonal/newyears/fireworks2 seasonal/newyears/party-hat
    seasonal/newyears/party-horn-in seasonal/newyears/party-horn-out town/monuments/inukshuk-outline
    sports/rugby_goal_posts""".split()
)
INVISIBLE_ON_WHITE = {"naturalforces/lightningbolt", "seasonal/halloween/ghost", "seasonal/halloween/skull",
                      "seasonal/christmas/lamp", "vehicles/emergency/sedan_police"}  # fmt: skip
CAPTIONS = {
    "animals/birds/albino_peahen": "an albino peahen", "animals/birds/cartoon/pengwin": "some penguins",
    "animals/birds/cartoon/tux": "a penguin",
    "animals/birds/cartoon/penguin_with_spider": "a penguin with a spider",
    "animals/fish/bluegroper": "a blue groper", "animals/fish/lobster": "a spiny lobster",
    "animals/insects/hoverfly": "a hoverfly", "animals/insects/cartoon/wings": "some wings",
    "animals/mammals/bears/toys/edward_bear": "a teddy bear",
    "animals/mammals/bears/cartoon/teddy_bear": "a teddy bear",
    "animals/mammals/bovines/gnu-baby": "a baby gnu", "animals/mammals/bovines/gnu-baby-stand": "a baby gnu",
    "animals/mammals/bovines/mountaingoat": "a mountain goat", "animals/mammals/bovines/sheep_lamb": "a lamb",
    "animals/mammals/hippopotamus": "a hippopotamus", "animals/mammals/wildboar": "two wild boars",
    "animals/mammals/bears/european-bear": "a European bear", "animals/fish/stripedfish": "a striped fish",
    "animals/fish/lionfish": "a lionfish", "animals/dinosaur/cartoon/dinosaurSings": "a dinosaur",
    "clothes/hats/mortarboard": "a graduation cap", "food/bread": "bread", "food/cheese": "cheese",
    "food/loaf_of_bread": "bread", "food/vegetables/broccoli": "broccoli", "food/vegetables/corn": "corn",
    "food/fruit/orange_seville": "a Seville orange", "food/spices/ginger": "a ginger root",
    "hobbies/knitting": "knitting", "food/fruit/avocado": "an avocado", "food/fruit/cherimoya": "a cherimoya",
    "food/pizza": "a slice of pizza", "food/vegetables/tomato": "a red tomato",
    "food/vegetables/garlic": "a head of garlic", "household/arttools/highlighter": "a highlighter",
    "household/clothes_iron": "an iron", "household/electronics/compact_disc": "a compact disc",
    "household/electronics/inkjet_printer": "an inkjet printer",
    "household/electronics/laser_printer": "a laser printer", "household/globe": "a globe",
    "household/recyclingbox": "a recycling box", "household/recyclingbox2": "a recycling box",
    "household/toilet": "a toilet", "household/tools/measuring_tape": "a measuring tape",
    "household/wheelie_bin": "a wheelie bin", "medical/digitalthermometer": "a digital thermometer",
    "medical/stethoscope": "a stethoscope", "military/ammunition/old_naval_shell": "an old naval shell",
    "military/vehicles/mustang": "an airplane", "military/vehicles/f22_raptor": "a fighter plane",
    "animals/birds/adelaide-rosella": "a rosella", "plants/flowers/red-gazania": "a red gazania",
    "plants/flowers/whitestar-petunia": "a petunia", "animals/birds/silver-gull": "a silver gull",
    "military/vehicles/bradley": "a tank", "military/vehicles/infantry-stryker": "an armored vehicle",
    "military/vehicles/ww2_german_gun": "an old gun", "naturalforces/explosion": "an explosion",
    "naturalforces/fire": "a fire", "people/body_parts/hair_manga_2": "brown hair",
    "people/body_parts/manga_eye_left": "an eye", "people/body_parts/manga_eye_right": "an eye",
    "people/body_parts/wig": "hair", "people/body_parts/wig2": "hair", "people/body_parts/wig3": "hair",
    "people/toys/grannysmith": "a rag doll", "plants/flowers/adeenia": "a desert rose",
    "plants/flowers/anthoorium": "an anthurium", "plants/flowers/appooppanthady": "a milkweed flower",
    "plants/flowers/bolsom": "a balsam flower", "plants/flowers/chemparathi": "a hibiscus flower",
    "plants/flowers/plastic/chuvanna_plastic_poo": "a red plastic flower", "plants/lavender": "lavender",
    "plants/mushrooms/cep-2": "two mushrooms", "plants/trees/holly_leaves": "some holly leaves",
    "plants/trees/birch": "a birch in winter", "plants/trees/rambutan": "a rambutan tree",
    "seasonal/christmas/Candy_cane_photo_1": "a candy cane",
    "seasonal/christmas/Candy_cane_photo_2": "a candy cane",
    "seasonal/christmas/Christmas_pudding": "a Christmas pudding",
    "seasonal/christmas/German_Christmas_toy": "a wooden toy", "seasonal/christmas/Mince_Pie": "a mince pie",
    "seasonal/christmas/Roast_turkey": "a roast turkey", "seasonal/christmas/Santa": "Santa Claus",
    "seasonal/christmas/hard_candy": "a candy", "seasonal/clover": "a four-leaf clover",
    "seasonal/halloween/grave-h": "a tombstone", "seasonal/hanukkah/dreydl-gimmel": "a dreidel",
    "seasonal/hanukkah/dreydl-hay": "a dreidel", "seasonal/hanukkah/dreydl-nun": "a dreidel",
    "seasonal/hanukkah/dreydl-shin": "a dreidel", "seasonal/hanukkah/menorah": "a menorah",
    "seasonal/newyears/confetti": "confetti", "seasonal/newyears/fireworks": "some fireworks",
    "seasonal/newyears/fireworks2": "some fireworks", "seasonal/shamrock": "a shamrock",
    "space/apollo_lander": "a lunar lander", "space/moon/moon_3qt": "the moon",
    "space/moon/moon_crescent": "a crescent moon", "space/moon/moon_full": "the full moon",
    "space/planets/0_sun": "the sun", "space/planets/3_earth": "the Earth",
    "space/planets/4_mars": "a red planet", "space/planets/5_jupiter": "a planet",
    "space/planets/6_saturn": "a ringed planet", "space/spacewalk": "an astronaut",
    "space/voyager2": "a space probe", "sports/australian_rules_football": "a football",
    "sports/football": "an American football", "sports/cartoon/football_helmet_front": "a football helmet",
    "sports/cartoon/football_helmet_side": "a football helmet", "sports/rugby_goal_posts": "some goal posts",
    "town/cartoon/docks": "some docks", "town/cartoon/fountain": "a fountain",
    "town/houses/cartoon/blacksmith": "a blacksmith shop", "town/houses/cartoon/cathedral": "a cathedral",
    "town/houses/cartoon/cave_entrance": "a cave", "town/houses/cartoon/circus": "a circus tent",
    "town/houses/cartoon/hunter": "a house", "town/houses/cartoon/townhall": "a town hall",
    "town/houses/cartoon/cityhouse": "two houses", "town/monuments/cartoon/eiffel_tower": "the Eiffel tower",
    "town/monuments/cartoon/magic_stones": "some stones", "town/monuments/inukshuk-outline": "an inukshuk",
    "town/monuments/inukshuk-photo": "an inukshuk", "town/roadsigns/no_entry_sign": "a no entry sign",
    "town/roadsigns/stop": "a stop sign", "town/roadsigns/stoplight_01_red": "a traffic light",
    "town/roadsigns/stoplight_02_yellow": "a traffic light",
    "town/roadsigns/stoplight_03_green": "a traffic light", "town/roadsigns/blankroadsign": "a road sign",
    "town/uk_post_box": "a post box", "vehicles/7spoke256": "a wheel",
    "vehicles/flight/cartoon/eddieCopter": "a helicopter",
    "vehicles/flight/planes/cartoon/plane": "an airplane", "vehicles/locomotive/cartoon/boxcar": "a boxcar",
    "vehicles/locomotive/cartoon/caboose": "a caboose", "vehicles/locomotive/cartoon/tanker": "a tank car",
    "vehicles/locomotive/cartoon/tender": "a coal car",
    "vehicles/farming/cartoon/tux_tractor": "a penguin in a tractor",
    "vehicles/ship/cartoon/bathyscape": "a submarine", "vehicles/auto/beetle": "a car",
    "vehicles/ship/walnutBoat": "a sailboat", "vehicles/auto/sedan": "a car", "symbols/clockface": "a clock",
    "town/roadsigns/traffic_cone": "a traffic cone", "plants/lettuce_bolted": "a lettuce plant",
}  # fmt: skip


def read(folder: Path) -> list[Picture]:
    root = folder / "usr" / "share" / "tuxpaint" / "stamps"
    found = (read_stamp(root, text) for text in sorted(root.rglob("*.txt")))
    return [picture for picture in found if picture]


def read_stamp(root: Path, text: Path) -> Picture | None:
    name = text.relative_to(root).with_suffix("").as_posix()
    png, svg = text.with_suffix(".png"), text.with_suffix(".svg")
    phrase = phrase_of(name, text)
    if not phrase or name in INVISIBLE_ON_WHITE or not (png.exists() or svg.exists()):
        return None
    image = svg if svg.exists() else png
    drawn = svg.exists() or name in DRAWN or bool(NOT_PHOTOGRAPHS & set(name.split("/")))
    kind = "drawing" if drawn and "/coins/" not in name else "photo"
    load = partial(render_svg, svg) if svg.exists() else partial(open_raster, png)
    path = f"tuxpaint/{image.relative_to(root).as_posix()}"
    return Picture(path, "tuxpaint", "tuxpaint", kind, load, phrase, group_of(name))


def phrase_of(name: str, text: Path) -> str:
    """First line of the caption file -> 'a zebra'; empty where it names nothing."""
    if name in CAPTIONS:
        return CAPTIONS[name]
    if "/coins/" in name:
        return "a coin"
    if name.startswith("symbols/") and not name.startswith(("symbols/shapes/", "symbols/clock")):
        return ""
    first = (text.read_text(encoding="utf-8", errors="replace").splitlines() or [""])[0]
    caption = re.sub(r"\s*\([^)]*\)|[“”\"]", "", first).replace("’", "'")
    caption = re.split(r"[.!?—]", caption)[0].strip()
    if not re.match(r"(An?|Some|Two) ", caption) or re.search(r"\b(is|are|called|means|used)\b", caption):
        return ""
    return caption[0].lower() + caption[1:]


def group_of(name: str) -> str:
    return next(FOLDERS[p] for p in sorted(FOLDERS, key=len, reverse=True) if name.startswith(p))
