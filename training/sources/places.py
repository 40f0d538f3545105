"""Shares of the classes of a picture -> what kind of place it is, where they leave no doubt; pure rules."""

from collections.abc import Mapping

INDOORS = {"ceiling", "bed", "toilet", "bathtub", "stove", "refrigerator", "microwave", "fireplace",
"wardrobe", "chest of drawers",
           "nightstand", "shower", "pool table", "sofa", "range hood", "dishwasher", "rug", "pillow",
           "cushion"}  # fmt: skip
OUTDOORS = {"road", "sidewalk", "sea", "mountain", "field", "hill", "sand", "river", "streetlight",
"traffic light", "grass",
            "ground", "path", "runway", "dirt track", "lake", "waterfall", "skyscraper"}  # fmt: skip


def is_indoors(shares: Mapping[str, float]) -> bool | None:
    """None where the classes do not decide it: a sky may be behind a window, a chair on a terrace."""
    inside = sum(share for name, share in shares.items() if name in INDOORS | {"floor", "wall"})
    outside = sum(share for name, share in shares.items() if name in OUTDOORS | {"sky"})
    sure = any(name in INDOORS and share >= 0.02 for name, share in shares.items())
    if sure and inside >= 0.4 and outside < 0.01:
        return True
    room = shares.get("ceiling", 0) + shares.get("floor", 0)
    if room < 0.005 and outside >= 0.2 and not any(name in INDOORS for name in shares):
        return False
    return None


def place_of(shares: Mapping[str, float]) -> str:
    """-> 'a bedroom'; empty where it is unclear."""
    has = {name for name, share in shares.items() if share >= 0.008}
    share = {name: shares.get(name, 0.0) for name in PARTS}
    inside = is_indoors(shares)
    kitchen = {
        "stove",
        "oven",
        "refrigerator",
        "dishwasher",
        "kitchen island",
        "range hood",
        "microwave",
    } & has
    lying = {"bed", "cradle"} & has
    rules = [
        ("a bathroom", bool({"toilet", "bathtub", "shower"} & has) and not lying and inside is not False),
        ("a bedroom", share["bed"] >= 0.06 and not kitchen and inside is not False),
        ("a kitchen", len(kitchen) >= 2 and not lying and "sofa" not in has),
        ("a game room", share["pool table"] >= 0.05),
        ("a living room", living_room(share, has) and not lying and not kitchen and bool(inside)),
        ("a dining room", dining_room(share, has) and not kitchen and bool(inside)),
        ("an office", "desk" in has and bool({"computer monitor", "computer", "swivel chair"} & has) and not lying),
        ("a swimming pool", share["swimming pool"] >= 0.05),
        ("a beach", share["sand"] >= 0.05 and share["sea"] + share["water"] >= 0.05),
        ("an airport", share["runway"] >= 0.05 or (share["airplane"] >= 0.08 and inside is False)),
        ("a waterfall", share["waterfall"] >= 0.05),
        ("a street", share["road"] >= 0.06 and share["building"] >= 0.1 and bool({"sidewalk", "car", "streetlight"} & has)),
        ("a road", share["road"] >= 0.12 and share["building"] + share["skyscraper"] < 0.01 and inside is False),
        ("a mountain landscape", share["mountain"] >= 0.2 and share["building"] < 0.03 and inside is False),
        ("a forest", share["tree"] >= 0.55 and not {"building", "house", "road", "sidewalk", "person"} & has),
        ("a field", share["field"] >= 0.2 and share["building"] < 0.05),
        ("a staircase", share["stairway"] + share["stairs"] >= 0.2 and inside is not False),
        ("a city", share["skyscraper"] >= 0.2),
    ]  # fmt: skip
    return next((name for name, holds in rules if holds), "")


PARTS = (
    "bed", "pool table", "swimming pool", "sand", "sea", "water", "runway", "airplane", "waterfall", "road", "building",
    "skyscraper", "mountain", "tree", "field", "stairway", "stairs", "sofa", "table", "chair", "armchair",
)  # fmt: skip


def living_room(share: Mapping[str, float], has: set[str]) -> bool:
    return share["sofa"] >= 0.03 and bool(
        {"coffee table", "fireplace", "TV", "rug", "armchair", "cushion"} & has
    )


def dining_room(share: Mapping[str, float], has: set[str]) -> bool:
    around = share["table"] >= 0.04 and share["chair"] >= 0.04
    return (
        around and bool({"chandelier", "sideboard"} & has) and not {"sofa", "bed", "desk", "computer"} & has
    )
