"""Art4Apps pictures, as the game pysiogame ships them: cartoons at 200 x 200, one word each.

In: the extracted Debian package. Out: one picture a word; verbs become "What is the person doing?".
Four pictures carry two right labels (cook and bake), and some verbs show an animal or a thing.
ACTIONS holds what a look at all of them allows to be said; a verb or noun that is not drawn as such is left
out.
"""

from functools import partial
from pathlib import Path

from training.picture import Picture, open_raster
from training.wording.phrases import with_article

FOLDERS = {
    "animals": "", "body": "body", "clothes_n_accessories": "clothing", "construction": "building",
    "food": "food", "fruit_n_veg": "", "jobs": "person", "nature": "place", "people": "person",
    "sport": "sport", "transport": "vehicle", "actions": "action",
}  # fmt: skip
ACTIONS = {  # file name -> (who, what they are doing)
    "bake": "a boy baking", "bark": "a dog barking", "beg": "a dog begging", "camp": "a person camping",
    "catch": "a person fishing", "chat": "two children talking", "cheer": "a girl cheering",
    "clay": "a person making a pot", "clean": "a person taking a shower", "climb": "a person climbing",
    "cough": "a man coughing", "crawl": "a baby crawling", "croak": "a frog croaking", "cry": "a baby crying",
    "dance": "two people dancing", "dig": "a person digging", "dream": "a dog dreaming",
    "drink": "a boy drinking", "drive": "a person driving a car", "eat": "a girl eating",
    "fell": "a person falling", "fetch": "a dog fetching a newspaper", "float": "a boy floating",
    "fly": "a pilot flying a plane", "hatch": "a chick hatching", "howl": "a wolf howling",
    "hug": "two bears hugging", "juggle": "a girl juggling", "kiss": "two people kissing",
    "kneel": "a man kneeling", "knit": "a woman knitting", "lift": "a boy lifting weights",
    "look": "a girl looking in a mirror", "nap": "a man sleeping", "peck": "a chick pecking",
    "play": "a child playing on a slide", "plow": "a farmer plowing", "pull": "a man pulling a donkey",
    "read": "a girl reading a book", "scream": "a girl screaming", "sing": "a woman singing",
    "sit": "a boy sitting", "slam": "a boy playing basketball", "sleep": "a man sleeping",
    "smooch": "a princess kissing a frog", "sniff": "a dog sniffing", "sob": "a man crying",
    "strum": "a person playing the guitar", "study": "a girl reading", "sweep": "a girl sweeping",
    "teach": "a teacher teaching", "think": "a person thinking", "wash": "a dog taking a bath",
    "write": "a girl writing", "boxing": "two people boxing", "golf": "a boy playing golf",
    "hike": "a person hiking", "hockey": "a person playing hockey", "hop": "a child jumping",
    "jog": "a boy jogging", "judo": "a girl doing judo", "jump": "a child jumping",
    "pool": "a person swimming", "race": "some people running", "ride": "a person riding a bicycle",
    "rope": "a girl jumping rope", "rowing": "a person rowing a boat", "run": "a wolf running",
    "skate": "a dog skateboarding", "ski": "a person skiing", "squat": "a person squatting",
    "stretch": "a person stretching", "swim": "a person swimming", "tennis": "a girl playing tennis",
    "throw": "a boy throwing a ball", "walk": "a person walking",
}  # fmt: skip
OTHER_NAMES = {
    "chimp": "chimpanzee", "lama": "llama", "lion_cub": "lion cub", "zip": "zipper", "jewel": "gemstone",
    "heel": "high heel", "ice_skating": "ice skates", "sailing": "sailboat", "feet": "feet", "cook": "cook",
    "fireman": "firefighter", "police": "police officer", "ballet": "ballet dancer", "magic": "magician",
    "vet": "vet", "dad": "father", "mom": "mother", "brothers": "brothers", "cut": "scissors",
    "shake": "maracas", "post": "mailbox", "blackbird": "blackbird", "hear": "", "peppers": "peppers",
    "aubergine": "eggplant", "torch": "torch", "shrike": "bird", "jay": "bird",
}  # fmt: skip
LEFT_OUT = set(
    """accountant actor anaesthesiologist back badge belly bottom breast carpet cheek chin circus coach coast
    cobra cook couple dam dessert doe engineer family feast female flour guy gum handlebar hip husband
    ice jam jelly kernel lad lady land lawyer lunch madam male mast mates meal mill muscle nostril
    office patch peak pedal pocket president ray roast robe sail sailor sash sauce sea shoe_sole shore
    shutter sleeve slice smock smoke son spice spine spread sprinkle stand step store street student
    throat tribe uniform viper wife win worker""".split()
)
FRUIT = set(
    """apple apricot avocado bananas blackberries blueberries cherries fig grapefruit grapes kiwi lemon lime
    mango melon olives orange papaya peach pear plums raspberry strawberry tomato""".split()
)
BIRDS = set(
    """bird blackbird chick chicken crow dove duck eagle flamingo goose hen hummingbird jay magpie ostrich owl
    parakeet parrot peacock pelican penguin pigeon rooster shrike sparrow swan turkey vulture""".split()
)
INSECTS = set("ant bee beetle caterpillar dragonfly ladybug mosquito scorpion slug snail spider wasp".split())
SEA = set("clam crab dolphin jellyfish lobster oyster piranha seal shark shrimp squid starfish whale".split())
REPTILES = set("alligator chameleon cobra frog iguana lizard salamander snake toad turtle viper".split())


def read(folder: Path) -> list[Picture]:
    root = folder / "usr/share/games/pysiogame/res/images/art4apps"
    found = (read_word(root, image) for image in sorted(root.glob("*/*.jpg")))
    return [picture for picture in found if picture]


def read_word(root: Path, image: Path) -> Picture | None:
    word, folder = image.stem, image.parent.name
    name = OTHER_NAMES.get(word, word.replace("_", " "))
    if folder in ("actions", "sport") and word in ACTIONS:
        phrase, group = ACTIONS[word], "action"
    elif (
        (folder == "actions" and word not in OTHER_NAMES)
        or folder not in FOLDERS
        or word in LEFT_OUT
        or not name
    ):
        return None
    else:
        phrase, group = with_article(name), group_of(folder, word)
    path = f"art4apps/{image.relative_to(root).as_posix()}"
    load = partial(open_raster, image)
    return Picture(path, "art4apps", "art4apps", "drawing", load, phrase, group, action_of(phrase, group))


def action_of(phrase: str, group: str) -> str:
    """'a person riding a bicycle' -> 'riding a bicycle'"""
    words = phrase.split()
    start = next((i for i, word in enumerate(words) if word.endswith("ing") and i > 1), 0)
    return " ".join(words[start:]) if group == "action" else ""


def group_of(folder: str, word: str) -> str:
    if folder == "animals":
        named = {"bird": BIRDS, "insect": INSECTS, "sea animal": SEA, "reptile": REPTILES}
        return next((group for group, words in named.items() if word in words), "mammal")
    if folder == "fruit_n_veg":
        return "fruit" if word in FRUIT else "vegetable"
    return "household" if folder == "actions" else FOLDERS[folder]
