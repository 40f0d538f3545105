"""Sweet Home 3D's furniture: renders of household objects, mostly 128 x 128, with a name and a room.

In: the extracted Debian package, whose .sh3f files are zip archives with a properties file. Out: one
picture an entry. Names with brands, digits or untranslated words are left out; rooms are no
category, so groups are guessed from the name and are mostly "furniture" or "household".
"""

import re
import zipfile
from functools import partial
from pathlib import Path

from PIL import Image

from training.picture import Picture, open_raster
from training.wording.phrases import with_article

UNCLEAR = re.compile(
    r"\d|,|\bBZ\b|Concept|Seat|Renault|Peugeot|Smart|VW|Yamaha|Ford|Chevrolet|PlayStation|Apple i|Arrow|"
    r"Frame|RJ45|type|Barnum|Puff|Flipper|Trunck|Hashtray|Mocassin|Short|Technical|[Uu]nit|Rigged|Penbox|"
    r"Mower|Holding|Lying|Bended|Parking|Island|Concrete sidewalk|Teck|Gaz |bank|Ryokan|Osaka|Winchester|"
    r"Burlap|Contemporary|Entry|Furnace|Class|Flacon|Acacia|Hood|Rails|extension|device|zones|panes|"
    r"under snow|Oil servers|Residential|Bullet|Small oven|Mezzanine|Captain|Bootie|Clear|artwork|"
    r"[Ll]ower|[Uu]pper|Number|Card game|Sycamore|Copper|antenna|dimmer"
)
NAMES = {
    "male": "man", "female": "woman", "sitting male": "sitting man", "sitting female": "sitting woman",
    "tv": "television", "wall flat tv": "television", "cup cake": "cupcake", "lip stick": "lipstick",
    "fork lift": "forklift", "cctv": "camera", "letters box": "mailbox", "extinguisher": "fire extinguisher",
    "bathmat": "bath mat", "hanging clothes": "clothes on a rack", "reflex camera": "camera",
    "bath": "bathtub", "screen": "computer screen", "suv": "car", "motorbike": "motorcycle",
    "car model": "car", "sitting boy": "sitting boy", "boiler": "boiler", "basin": "washbasin",
    "mannequin male": "mannequin", "mannequin female": "mannequin", "wire coathanger": "clothes hanger",
    "text marker": "marker", "cafe chair": "chair", "woman shoes": "shoes", "children chair": "chair",
    "children table": "table", "children game": "toy", "table tennis": "table tennis table",
    "turn window": "window", "tatami": "tatami mat", "relax chair": "chair", "wood toy": "wooden toy",
    "utensils pot": "pot of utensils", "drawers cabinet": "cabinet",
    "rectangle swimming pool": "swimming pool", "dart game": "dart board", "cone": "traffic cone",
    "rubik's cube": "Rubik's cube", "tv stand": "TV stand", "cafe table": "table", "dustbin": "trash can",
    "park trashcan": "trash can",
}  # fmt: skip
GROUP_WORDS = {
    "furniture": "chair armchair table sofa couch desk bed stool wardrobe bookcase bench cabinet shelves "
    "cupboard dresser crib futon hammock lamp chandelier mirror chest rack vanity light",
    "vehicle": "truck scooter car bus van bicycle bike motorcycle wheelchair biplane tricycle stroller "
    "forklift rowboat train wheelbarrow",
    "plant": "plant tree palm ficus bamboo yucca cactus hedge bush tulips orchids flowers pine poplar "
    "maple cypress bonsai lily spathiphyllum blossom",
    "person": "man woman boy girl", "mammal": "horse dog cat deer rabbit bulldog", "bird": "chicken",
    "food": "bread butter hamburger fries steak cake cupcake salad fruits apples sugar milk",
    "dishes": "cup glass bottle bowl plate fork spoon knife teapot mug pot tray pan press squeezer",
    "electronics": "television camera laptop keyboard phone radio tablet speaker microwave refrigerator "
    "fridge oven screen machine toaster mixer blender printer stereo",
    "tool": "hammer saw screwdriver shovel drill pliers tool", "music": "piano guitar xylophone",
    "clothing": "hat cap jacket dress skirt trousers suit shoes slippers sneakers glove helmet handbag "
    "backpack",
    "sport": "ball basketball racket treadmill trampoline net goal skateboard",
    "building": "fence door window staircase elevator chimney hut tent",
}  # fmt: skip
NOT_WHAT_THEY_SAY = {"rocking horse": "game", "dog house": "building", "clothes horse": "household",
                     "roasted chicken": "food", "pool table": "game", "bowl with salad": "food"}  # fmt: skip


def read(folder: Path) -> list[Picture]:
    root = folder / "usr/share/sweethome3d/furniture"
    return [picture for archive in sorted(root.glob("*.sh3f")) for picture in read_catalogue(archive)]


def read_catalogue(archive: Path) -> list[Picture]:
    with zipfile.ZipFile(archive) as files:
        text = files.read("PluginFurnitureCatalog.properties").decode("latin-1")
        present = set(files.namelist())
    entries = dict(re.findall(r"^(\w+#\d+)\s*=\s*(.*?)\s*$", text, flags=re.M))
    pictures = []
    for key in (key for key in entries if key.startswith("name#")):
        number = key.removeprefix("name#")
        icon = entries.get(f"icon#{number}", "").lstrip("/")
        if icon not in present or not entries[key].isascii() or UNCLEAR.search(entries[key]):
            continue
        name = NAMES.get(entries[key].lower(), entries[key].lower())
        path = f"sweethome3d/{archive.stem}/{Path(icon).name}"
        load = partial(load_icon, archive, icon)
        phrase = with_article(name)
        pictures.append(Picture(path, "sweethome3d", "sweethome3d", "render", load, phrase, group_of(name)))
    return pictures


def load_icon(archive: Path, icon: str) -> Image.Image:
    with zipfile.ZipFile(archive) as files:
        return open_raster(files.read(icon))


def group_of(name: str) -> str:
    if name in NOT_WHAT_THEY_SAY:
        return NOT_WHAT_THEY_SAY[name]
    words = set(name.split())
    return next((group for group, known in GROUP_WORDS.items() if words & set(known.split())), "household")
