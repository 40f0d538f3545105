"""Pictures of the educational suite GCompris: photographs of animals, tools and monuments, and drawings.

In: the extracted Debian package, whose pictures are WebP and SVG files inside Qt resource files. Out: one
picture for each file that SHOWN names. SHOWN was written with all pictures in view and is the list of
what is read; the rest is backgrounds, parts, letters, and pictures that show something else than their name.
The word pictures of lang.rcc are those of Art4Apps, which art4apps.py reads, but for the few listed here.
"""

import re
from functools import partial
from pathlib import Path

from PIL import Image

from training.picture import Picture, open_raster, render_svg
from training.sources.qt_resources import Entry, list_entries, read_entry
from training.wording.phrases import with_article
from vlm.errors import UserError

DRAWN = {"lang"}  # resource files whose WebP pictures are drawings; the others' are photographs
# Resource file -> "group: name, name|name=phrase; group: ...". A name is a file name, or it lacks the suffix, or the
# number, whichever is found first; an empty phrase leaves the picture out.
SHOWN = {
    "advanced_colors": """
        insect: amber_butterfly|azure_butterfly|crimson_butterfly|emerald_butterfly|purple_butterfly|
        platinum_butterfly=a butterfly""",
    "algorithm": "fruit: cherries, lemon, pineapple, plum",
    "babymatch": """
        fruit: apple; vegetable: carrot; household: bell, bottle, crown, lamp, light=a light bulb, pencil, lifebuoy,
        postpoint=a mailbox, rape=a grater, windflag5=a flag, postcard; vehicle: bicycle, car, fishingboat=a boat,
        fusee=a rocket, minivan=a van, sailingboat=a sailboat, truck, tuxhelico=a helicopter, tuxplane=an airplane;
        building: castle, house, lighthouse; food: egg; dishes: eggpot=an egg cup; flower: flower=a rose; sport:
        football=a soccer ball, raquette=a tennis racket; furniture: sofa; electronics: sound=a loudspeaker; symbol:
        star; sky: sun; plant: tree""",
    "babyshapes": """
        household: baby_bottle; fruit: banana, orange, pear; food: bread_slice=a slice of bread, butter, chocolate,
        chocolate_cake=a muffin, cookie, french_croissant=a croissant, marmelade=a jar of jam; drink: milk_cup=a
        bowl of milk, milk_shake=a milkshake""",
    "categorization": """
        sea animal: fish, fish4|fish5|fish7|fish10|fish11|fish20=some fish, fish9=a clownfish, fish25=a goldfish,
        fish28=a pufferfish; tool: hammer, hammer3=a sledgehammer, measuringTape, multimeter, nailCutter=a nail
        clipper, plier|cuttingTool|sideCutter=a pair of pliers, scissors, screwDriver=a screwdriver, screwDriver3=,
        sickle, tweezer=some tweezers, wrench; household: bucket, bulb=a light bulb, pillow, spray=a spray bottle,
        weighingMachine=a scale; dishes: buffetset=a cup, cup, knife=cutlery, pan, plate, spoons; furniture: chair;
        office: blackslate=a blackboard, erasers=an eraser, pencil; sport: baseball, volleyball; game: alphabets|
        numbers=some toy blocks; building: dam1, dam5, windmill, windmill3|windmill13=some windmills, windmill6=a
        wind turbine, arcDeTriomphe|IndiaGate=an arch, brandenburgGate=the Brandenburg Gate, cathedral,
        colosseum=the Colosseum, eiffelTower=the Eiffel Tower, empireState=a skyscraper, greatPyramid=a pyramid,
        jucheTower|kutubMinar=a tower, leaningTowerOfPisa=the Leaning Tower of Pisa, operaHouse=the Sydney Opera
        House, parthenon=a temple, tajMahal=the Taj Mahal, zimniPalace=a palace; place: greatWall=the Great Wall of
        China; other: christTheRedeemer=a statue, statueOfLiberty=the Statue of Liberty; electronics: solar4|solar5|
        solar6|solar8=some solar panels, solar7=a solar panel""",
    "chronos": """
        vehicle: 1955ds19|lancia1923|renault1899=a car, bell_X1|bleriot|lindbergh=an airplane, mongolfiere=a hot air
        balloon, st_rocket=a steam locomotive, wright_flyer=a biplane""",
    "colors": """
        game: black_duck|blue_duck|brown_duck|green_duck|grey_duck|orange_duck|pink_duck|purple_duck|red_duck|
        white_duck|yellow_duck=a rubber duck""",
    "crane": "symbol: water_drop",
    "enumerate": "fruit: grapes, peach, strawberry, watermelon; reptile: turtle",
    "erase": """
        mammal: alpaca, calf, camels, cheetah, flying_fox=a bat, gibbon, giraffe, goat, gorilla, horse, kitten,
        long_nosed_monkey=a proboscis monkey, macaque, meerkats, nubian_ibex=an ibex, pika, red_panda, rhinoceros,
        squirrel; bird: gosling, heron, kingfisher, northern_harrier=a harrier, penguin, spoonbills, swans, toucan;
        insect: bee, butterfly, caterpillar; reptile: chamaeleon=a chameleon; sea animal: crab, dolphin""",
    "explore_farm_animals": """
        mammal: cat, cow, dog, horse, horse.webp=some horses, pig, sheep; bird: chicken=some chickens, duck,
        duck.svg=some ducks, owl""",
    "explore_monuments": """
        building: bentPyramid|greatPyramidOfGiza|meidumPyramid|redPyramid|chichenItza=a pyramid,
        arlesAmphitheater=an amphitheater, chateaudeChambord|chateaudeChenonceau|citedeCarcassonne|
        neuschwansteinCastle|schwerinPalace=a castle, eiffelTower=the Eiffel Tower, palaisdesPapes|hawaMahal|
        mysorePalace=a palace, pontduGard=an aqueduct, reimsCathedral|berlinCathedral|wormsCathedral=a cathedral,
        brandenburgGate=the Brandenburg Gate, goldenTemple|konarkSunTemple=a temple, qutubMinar=a tower,
        castillodeSanMarcos|fortSumter=a fort, colosseum=the Colosseum, tajMahal=the Taj Mahal; place:
        greatWallofChina=the Great Wall of China; other: cabrillo=a statue, statueofLiberty=the Statue of Liberty""",
    "explore_world_animals": """
        mammal: bison, giraffe=some giraffes, hedgehog, jaguar=some jaguars, kangaroo=some kangaroos, koala,
        lemur=some lemurs, moose, panda, polar_bear; reptile: chameleon, crocodile, dragon=a Komodo dragon; bird:
        scarlet_macaw; sea animal: narwhal=some narwhals""",
    "explore_world_music": "music: africa=some drums; other: orchestra; household: suitcase",
    "family": "person: babyBoy|babyGirl=a baby, boy, girl, man, woman, oldMan, oldWoman; clothing: rings",
    "followline": "vehicle: fireman=a fire engine",
    "gravity": "vehicle: tux_spaceship=a flying saucer",
    "instruments": """
        music: accordion, banjo, bongo=some bongos, castanets, cello, clarinet, cymbal=some cymbals, drum_kit,
        electric_guitar, flute_traversiere=a flute, guitar, harmonica, harp, horn, maracas, piano, saxophone,
        snare_drum, tambourine, timpani=a kettledrum, triangle, trombone, trumpet, tuba, violin""",
    "lang": "food: fruit=a basket of fruit; insect: butterfly, flies=a fly; sea animal: fish; body: brain; other: dragon",
    "leftright": """
        body: main_droite_dessus_0|main_droite_paume_0|main_gauche_dessus_0|main_gauche_paume_0=a hand,
        poing_droit_dessus_0|poing_droit_paume_0|poing_gauche_dessus_0|poing_gauche_paume_0=a fist; office:
        blackboard""",
    "magic-hat-minus": "clothing: hat",
    "memory": """
        mammal: cat, pig, bear, hippopotamus, cow, sheep, panda, wolf, monkey, fox, elephant, lion, gnu; bird:
        penguin, chicken, redbird=a bird, bluebirds=some birds, tux=a penguin; reptile: turtle, frog; person:
        bluebaby|greenbaby=a baby, child=a girl""",
    "menu": "tool: search-icon=a magnifying glass",
    "mosaic": "vegetable: mushroom; office: oil_paint=a palette, pencils",
    "railroad": "vehicle: loco=a locomotive",
    "reversecount": "sea animal: fish-blue=a fish",
    "scalesboard": "household: gift",
    "share": "person: boy; food: candy=a candy cane",
    "submarine": "sea animal: whale; vehicle: boat=a ship",
}  # fmt: skip


def read(folder: Path) -> list[Picture]:
    root = folder / "usr/share/gcompris-qt/rcc"
    files = (root / f"{name}.rcc" for name in SHOWN)
    try:
        return [picture for file in files if file.exists() for picture in read_resource(file)]
    except ValueError as problem:
        raise UserError(
            f"{problem}. {folder} is damaged. Delete it and give the same command again."
        ) from problem


def read_resource(file: Path) -> list[Picture]:
    listed = what_is_shown(SHOWN[file.stem])
    pictures = []
    for entry in sorted(list_entries(file)):
        _, _, name = entry.path.partition("/resource/")
        known = next((key for key in names_of(Path(name).name) if key in listed), "")
        group, phrase = listed.get(known, ("", ""))
        if not phrase or not name.endswith((".svg", ".webp")):
            continue
        kind = "drawing" if name.endswith(".svg") or file.stem in DRAWN else "photo"
        path, load = f"gcompris/{file.stem}/{name}", partial(load_entry, file, entry)
        pictures.append(Picture(path, "gcompris", "gcompris", kind, load, phrase, group))
    return pictures


def what_is_shown(table: str) -> dict[str, tuple[str, str]]:
    """ "tool: plier=a pair of pliers, wrench" -> {"plier": ("tool", "a pair of pliers"), ...}"""
    shown = {}
    for entry in " ".join(table.split()).split("; "):
        group, _, items = entry.partition(": ")
        for item in items.split(", "):
            names, equals, phrase = item.partition("=")
            for name in map(str.strip, names.split("|")):
                shown[name] = (group, phrase if equals else phrase_of(name))
    return shown


def names_of(file_name: str) -> tuple[str, str, str]:
    """'01_cat.svg' -> ('01_cat.svg', '01_cat', 'cat')"""
    stem = file_name.rpartition(".")[0]
    return file_name, stem, re.sub(r"^\d+_|_?\d+$", "", stem)


def phrase_of(name: str) -> str:
    """'measuringTape3' -> 'a measuring tape'; 'red_panda' -> 'a red panda'"""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", re.sub(r"\d+$", "", name))
    return with_article(words.lower())


def load_entry(file: Path, entry: Entry) -> Image.Image:
    data = read_entry(file, entry)
    return render_svg(data.decode("utf-8")) if entry.path.endswith(".svg") else open_raster(data)
