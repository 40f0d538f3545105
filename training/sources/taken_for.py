"""Things that an honest person may call by one another's names, or whose boundaries nobody agrees on.

Where one of them is in a picture, nothing is said of the absence of the others.
"""

from collections.abc import Iterable

from training.wording.phrases import singular

TEXT = """
    chair, armchair, swivel chair, seat, stool; sofa, couch, armchair; bench, seat; ottoman, stool, cushion; sofa, seat;
    table, dining table, coffee table, counter, countertop, kitchen island; table, desk; table, pool table; desk, counter;
    cabinet, chest of drawers, wardrobe, shelf, sideboard, nightstand; bookcase, shelf; cabinet, counter, kitchen island;
    stairs, stairway, escalator; banister, railing, fence; stairs, banister; building, house, skyscraper, tower;
    light, lamp, wall lamp, chandelier, streetlight, traffic light; fan, light; tree, palm tree, plant; plant, flower;
    plant, potted plant, pot; flower, vase, potted plant; plant, grass, field; water, sea, river, lake, swimming pool;
    water, waterfall, fountain; river, boat; road, path, sidewalk, dirt track, runway, ground; floor, ground;
    ground, sand, field, grass; rock, hill, mountain; rock, ground; screen, computer monitor, computer, TV, laptop;
    screen, poster; arcade machine, computer; computer, keyboard, computer mouse; pillow, cushion; blanket, bed;
    blanket, towel, clothes; bed, pillow; curtain, window blind, shower; awning, tent, umbrella; window, window blind;
    window, screen door, door; window, mirror; sign, poster, painting, bulletin board; sign, flag; bag, box, basket;
    bag, handbag, backpack, suitcase; barrel, trash can; basket, trash can; glass, cup, wine glass, bottle; vase, pot, bowl;
    vase, bottle; bowl, plate, tray; bowl, cup; car, van; van, truck, bus; column, pole, tower; rug, floor; stove, oven;
    microwave, oven; range hood, stove; washing machine, dishwasher; sink, countertop; animal, dog; animal, cat;
    animal, horse; animal, cow; animal, sheep; animal, bird; food, apple; food, banana; food, orange; food, cake;
    food, pizza; food, sandwich; food, donut; food, carrot; food, broccoli; sandwich, hot dog; donut, cake; toy, teddy bear;
    toy, ball; sculpture, person; clothes, person; clock, watch; book, box; pier, bridge; boat, ship; bed, cradle;
    path, rug; shower, bathtub; plate, food; bottle, lamp; remote control, cell phone; sofa, bed; lotus flower, water lily;
    lobster, crayfish; cup, ewer; sailboat, ferry; emu, ostrich; cougar, wild cat, leopard; wild cat,
    cat; dog, wolf, red wolf, timber wolf, fox;
    dog, white wolf, coyote, dingo, dhole, African wild dog, hyena, red fox, kit fox, gray fox,
    Arctic fox; person, soldier, gymnast
"""
FAMILIES = [set(family.strip().split(", ")) for family in " ".join(TEXT.split()).split(";")]


def taken_for(present: Iterable[str], asked: Iterable[str]) -> set[str]:
    """Names in a picture -> the names of `asked` that nobody can deny there."""
    names = set(present)
    near = names.union(*(family for family in FAMILIES if family & names))
    words = {singular(word) for name in names for word in name.lower().split()}
    alike = {name for name in asked if words & {singular(word) for word in name.lower().split()}}
    return alike | near.intersection(asked)
