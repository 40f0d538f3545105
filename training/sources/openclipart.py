"""Open Clip Art 0.18: drawings by many hands; the caption is the title inside the SVG of the same name.

In: the two extracted Debian packages. Out: one picture for each PNG whose title is a plain English name: it
ends in a noun of GROUPS_OF, which says the group, and each word before is such a noun, an adjective or one
of MODIFIERS. A third of the titles are Italian or French, or clumsy, and CAPTIONS puts them right.
Where the title is a template's, the file name stands in. Keywords are mostly wrong and never read. Symbolic
links and copies are passed over, as are icons, stars, flags, maps, signs and playing cards. LEFT_OUT is what
a look at all the others found wrong: another thing, a scene, or nothing to be seen on white.
"""

import hashlib
import html
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from training.picture import MAX_SIDE, Picture, render_svg
from training.wording.phrases import concept_of, singular, with_article
from training.wording.words import ADJECTIVES, by_name

FOLDERS = set(
    """animals buildings computer containers education electronics food geography office people plants
    recreation science tools transportation unsorted""".split()
)
ICONS = re.compile(r"computer/(buttons|icons|diagrams|folders)/|people/(stickmen|smilies)/|"
                   r"recreation/games/cards/|transportation/roadsigns/|computer/home|.*_mateya_")  # fmt: skip


GROUPS_OF = by_name("""
    mammal: antelope, armadillo, bat, bear, bison, bull, bunny, camel, cat, cow, deer, dog, echidna,
    elephant, fawn, goat, horse, kangaroo, kitten, lion, monkey, mouse, pig, puppy, rabbit, rhinoceros,
    sheep, squirrel, tiger; reptile: dinosaur, frog, lizard, turtle; bird: bird, crow, duck, eagle, flamingo,
    gull, hen, ostrich, owl, penguin, pigeon, rooster, seagull, swan, turkey; insect: ant, bee, butterfly,
    caterpillar, damselfly, dragonfly, fly, grasshopper, ladybug, mantis, mosquito, snail, spider, wasp; sea
    animal: angelfish, cichlid, crawfish, dolphin, fish, gourami, loach, orca, seal; person: alien, baby,
    ballerina, boy, bride, carpenter, chef, chemist, clown, doctor, girl, grandfather, groom, man, mermaid,
    nurse, officer, princess, sailor, santa claus, scarecrow, troll, woman, woman reading; tool: anchor, axe,
    chainsaw, drill, grinder, hammer, ladder, measure, padlock, rake, roller, saw, screwdriver, shears,
    shovel, trowel; building: building, church, factory, house, igloo, lighthouse, sandcastle, school, tent,
    water tower; furniture: chair, lamp, table; electronics: battery, boombox, calculator, camcorder, camera,
    computer, computer mouse, disc, headphones, keyboard, laptop, monitor, phone, printer, robot, satellite
    dish, server, telephone, television, transistor, webcam; household: baby bottle, bag, balloon, barrel,
    basket, box, broom, brush, bulb, candle, carton, cleaner, dispenser, frame, gift, globe, hourglass, iron,
    ironing board, key, lightbulb, lock, mailbox, pacifier, suitcase, thermometer, toothbrush, umbrella;
    office: book, clipboard, compass, diary, envelope, eraser, feather, magnet, magnifying glass, megaphone,
    newspaper, notebook, paintbrush, palette, paperclip, pen, pencil, scissors, stack, stamp, stapler,
    thumbtack; fruit: apple, banana, cherry, grape, lemon, lime, melon, orange, peach, pear, pineapple, plum,
    strawberry, watermelon; dishes: bottle, bowl, can, cup, glass, martini glass, mug, pan, teacup, teapot;
    drink: cocktail, juice box, lemonade; food: bacon, bread, burger, burrito, butter, cake, candied apples,
    candy, cane, cheese, chip, cone, corn, corn dog, croissant, cupcake, egg, flan, fondue, fries, hamburger,
    honeycomb, hot dog, ice cream, ice cube, lasagna, lollipop, marshmallow, muffin, onion rings, pancake,
    pie, pizza, pretzel, sandwich, sausage, soup, spaghetti, toast; vegetable: garlic, onion, potato,
    pumpkin, radish, tomatoes; plant: acorn, bamboo, cactus, fern, leaf, mushroom, toadstool, tree; season:
    christmas balls, christmas tree, jack-o-lantern, snowman; sky: moon, planet, rainbow; body: brain, ear,
    eye, hand, mouth, skull, tooth; clothing: backpack, boot, bow, cap, dress, earring, fedora, handbag, hat,
    mitten, ring, shirt, shoe, skate, sombrero, sunglasses, t-shirt, tie; vehicle: air balloon, airplane,
    ambulance, bicycle, bike, boat, bus, car, fire engine, forklift, mixer, motorcycle, rocket, tank,
    tractor, tram, trawler, truck; flower: bouquet, daffodil, daisy, flower, geranium, magnolia, rose,
    sunflower, tulip; sport: ball, baseball, baseball bat, baseball glove, binoculars, boomerang, cricket
    bat, dartboard, football helmet, racket, scuba tank, sledge, soccer ball, surfboard, volleyball; game:
    cube, dice, rubber duck, teddy bear, toy train, wagon; music: cello, drum, flute, french horn, guitar,
    harp, maraca, note, oboe, piano, piano keys, record, saxophone, trombone, trumpet, violin, xylophone;
    other: bomb, fire, gun, sword; medical: scalpel, stethoscope, syringe; science: microscope, telescope,
    tube
""")  # group: what a title may end in
MODIFIERS = set(
    """apple baby badminton baseball bass beach blueberry bulldog candied cardboard cell cellular cherry chicken
    chocolate christmas computer corn cream cricket desk digital double electric emperor fire flying football
    formula french fried frying garlic herald hiking hot hurricane ice ironing juice light magnifying martini
    milk mobile one onion orange paint picture police postage potato pumpkin recycling rubber satellite scrub
    scuba sleeping slice slim soccer square submarine teddy tennis tenor vacuum water wedding wine winter""".split()
)
CAPTIONS = by_name("""
    Christmas tree: xmas; French horn: french horn; Rubik's cube: rubik, rubik's cube, rubik's cube random;
    Santa Claus: fatherchristmas; airplane: aircraft, military airplane; ambulance: ambulans, ambulanza;
    angelfish: altum angelfish; ant: formichina, formicona; antelope: antilope; apple with a worm: apple with
    worm; apple: apple bitten; baby bottle: biberon; backpack: zaino per montagna; ball: handball ball;
    balloon: baloon, balloons-aj; basket: cesto; bass guitar: bass-guitar; bear: orso, ours; bee: abeille;
    bicycle: bicicletta cycle; billiard ball: 8 ball, 9 ball; binoculars: binocolo bn; bird: uccello bianco e
    nero, uccello profilo, pennuto; birthday cake: birthday cake; boiled egg: half egg; book: closed bible;
    bouquet of flowers: bouquet of flowers; bow tie: tie - clothing; bow: fiocco; bowl of soup: bowl of
    steaming soup; bowling ball: blowling ball; box: scatolone; boy playing soccer: boy plays soccer; boy:
    happy boy, ragazzo; bread: loaf of bread; bride and groom: wedding couple; building: condominio;
    butterflies: quattro farfalle; butterfly: farfalla - butterfly, farfalla contorno, farfalla semplice,
    farfalla stilizzata; cactus: cacuts; camel: cammello; can: pop can; candle: candela; candy cane:
    candy_10; car: hummer; carpenter: carpentiere; carton of milk: milk; cat: gattina cat, gatto cat; cement
    mixer: betoniera; chainsaw: motosega; chair: sedia in legno; chemist: woman chemist; church: church
    building; clown: brozo the clown; compact disc: cd, compact disc; compass: bussola; computer monitor: crt
    monitor, lcd monitor; computer mouse: mouse, mouse scroll; corn dog: corndog; corn: corn on the cob,
    pannocchia di gran turco; cow: mucca; cup of coffee: coffee, tazza di caffe; cup with a straw: soft drink
    in a cup; cupcake: muffin_jean_victor_balin_; dice: two red dice; digital camera: macchina fotografica
    digitale; dinosaur: dino, dinosauri, dinosauro; doctor: woman doctor; dog on a leash: dog on leash; dog:
    labrador retriever; dragonfly: libellula, libellule; dress: vestito rosa; drum: africandrum, djambe drum;
    duck: anatra, papera; eagle: acquila, aquila frontale; ear: ear - body part; elephant: elefante, elephant
    outline, elefante in corsa, elefantone; envelope: envelop, lettera; eye: woman eye; eyes: woman eyes;
    fish: pescetto; flamingo: flamand; flower in a pot: flowerandpot; flute: flute in c; forklift:
    montacarichi; frog: rana, red-eye frog; garlic: aglio; geranium in a pot: geranium in pot; gift: pacco
    regalo; girl: blue girl, ragazza bionda, ragazza bruna, ragazza rossa; glass of juice: juice glass; glass
    of water: ice water glass; globe: svg globe, svg globe blue, svg globe green; grandfather: grandpa;
    grapes: grape; grasshopper: cavalletta, grass hopper; guitar: acoustic guitar, guitar profile; hamburger:
    burger; handbag: borsetta; harp: celtic harp simple, classical harp, celtic harp; hat: hat - clothing;
    hedge shears: hedgeshear; honeycomb: honey; horse: cavallo; hot air balloon: pallone aerestatico;
    hourglass: clessidra; house: casa verde, casa dei sogni, casa in campagna, home, pinkhome-simple,
    pinkhome; ice cream cone: soft serve ice cream cone, chocolate soft serve ice cream cone, vanilla soft
    serve ice cream cone; ice cream: glace; ice cube: icecube; ice skate: pattino; iron: ferro da stiro;
    ironing board: asse da stiro; jack-o-lantern: pumpkin2_yemu_01, pumpkin_erik_postma_01; kangaroo:
    canguro; key: chiave; ladder: scala doppia; ladybug: coccinella, coccinelle, coccinellona; laptop:
    etiquette laptop; lightbulb: bulb; lime: lime half; lion: leone; lizard: az-lizard, lucertola, lucertola
    arrotolata, lucertolona, ramarro; lock: serratura; lollipop: candy_20, candy_21, candy_22, candy_30,
    candy_31; magnet: calamita; magnifying glass: magnificator, magnifing glass; magnolia: magnolia-white;
    man driving a car: man driving car; marshmallow on a stick: marshmallow on a stick; meat grinder:
    meatgrinder; microscope: microscopio; moon: moons, full moon; mosquito: moschito, zanzara; mouse: topo;
    mouth: mouth - body part; movie camera: cinepresa; muffin: generic muffin; mug of beer: beer; mushroom:
    champignon; musical note: double note; notebook: blocco notes; nurse: woman nurse; office chair: poltrona
    ufficio; open book: open bible; orange fish: pescetto arancione; ostrich: struzzo; owl on a branch: owl
    on branch; owl: gufo civetta; pacifier: ciuccio; padlock: lucchetto grigio, lucchetto ottone, lock; paint
    roller: brush roller; paintbrush: brush, pennello, paint brush; palm tree: palmtree; pancakes: pan cakes;
    paper bag: paperbag; paperclip: clips; party hat: hat_01, hat_02; peach: pesca; pear: pera; pencil:
    crayon; penguin: pinguino; penguins: Pinguino3; piece of candy: candy; pigeon: colombo; pink rose:
    pink-rose; planet: jupiter, saturn; plum: prune; plums: la prugna; police officer: police man, woman
    police; praying hands: hands; praying mantis: mante religieuse, mantide religiosa; princess: principessa;
    printer: etiquette printer, laserprinter, stampante; pumpkin: zucca; rabbit: coniglio; radish: ravanello;
    rake: leafrake; record: 45 rpm record; red car: redcar; rooster: gallo di profilo; rose: rosa; roses:
    rose; sandcastle: sand castle; sandwich: sandwich one, tramezzino; sausages: breakfast sausage; saw:
    bowsaw, utensile sega, sega per legno; scarecrow: spaventapasseri; seagull: gabbiano, seagull contour,
    gabbiano piccolo; sheep: pecora, pecorella; shirt: camicia in seta; shovel: roundpointshovel; sitting
    girl: ragazza seduta; slice of lemon: lemon1, lemon_half_slice_ganson, lemon_slice_ganson,
    lemon_wedge_ganson; slice of lime: lime_half_slice_ganson, lime_slice_ganson, lime_wedge_ganson; slice of
    orange: orange slice; slice of pizza: pizza 4 stagioni, cheese pizza slice, pepperoni pizza slice, pizza
    slice; snail: lumaca; soap dispenser: sapone liquido; soccer ball: football ball; spaghetti: spaghetti
    and sauce; sports car: sportcar; stack of books: stack of books; stapler: stappler, pinzatrice grigia;
    stethoscope: stetoscopio fonendoscopio; suitcase: little tan suitcase; sunflower: sunflower against blue
    sky; swan: cigno, cigno di spalle; sword: katana, longsword; syringe: siringa; table: tavolo in legno;
    tank: m1 abrams main battle tank; tape measure: metro avvolgibile; teapot: teiera tazza; teddy bear:
    teddybear; tent: tenda da campeggio; test tube: provetta; tiger: tigre; tomatoes: pomodori; tooth: dente;
    toothbrush with toothpaste: toothbrush with toothpaste; top hat: tophat; toy train: kiddy train; tractor:
    trattore; tram: tramway; tree: albero, arbre modern; trumpet: trumpet b flat, pocket trumpet b flat;
    tulips: tulips in bloom; turkey: tacchino; vacuum cleaner: vavuum cleaner - upright; video camera:
    telecamera; volleyball: volley-ball, volley ball; watermelon: pasteque
""")  # caption: the titles, or file names, that it stands for
LEFT_OUT = set(
    """45_rpm_record_gerald_g._03 45_rpm_record_gerald_g._04 Cornetto Uovo_sorridente a_man_singing_01
    a_teapot_01 acquila_architetto_franc_01 acquila_architetto_franc_04 angel_01 ape_miele
    badminton_racket_brice_b_01 balloons-aj bee2_mimooh_01 beer1 bicicletta_cycle_archite_01
    bicycle_philippe_colin_01 big_house_01 binoculars_vladimir_hern_01 bottiglia_di_vino_pregi_01
    bowl_chaspo_ box_juliane_krug_r bucket_michael_moore_ bus_01 calcolatrice_architetto__01
    cartoon_tree_01 caterpillar cello_mo_02 closed_box_juliane_krug_r colombo2 corridore dice
    dino_architetto_francesc_10 dinosauro_architetto_fra_03 dog_on_leash_gerald_g._02 dolphin_01
    electric_lighter_joel_mo_01 eris_apple_nurbldoff_01 fiore_01 fire_engine_romus_01
    fireman_enrique_meza_c_01 foglie_arancioni foglie_marroni foglie_rosse foglie_verdi
    folder_juliane_krug_01 galette_01 gatto_nero_architetto_fr_01 glass_01 home10 home11 home13 home15
    home8 horse_1_konstantin_r._01 horse_2_konstantin_r._01 houses_jon_phillips_01 keyboard_01
    keyboard_key_yemu lamp_sergio_luiz_araujo__01 lemonade_linda_kim_01 light_bulb_karl_bartel_01
    lightbulb_jon_phillips_03 mag2 mag3 mag4 magnolia_white_patricia__01 mazzo_di_fiori_architett_01
    moon_jasper_van_de_grond_01 mosquito_peterm_01 note paint_brush_linda_kim_01 pear_jean-victor_balin_01r
    pinkhome3 plane_in_the_sky_mo_01 potato_nicu_buculei_01 ragno_figo_architetto_fr_01 red_flower_03
    redcar_marcelo_caiafa_ router_andy_fitzsimon_r router_joeseph_teed_01 router_joeseph_teed_02 scale_01
    sega_per_legno sleeping_cat_rgolan_sup_r soft_blue_couch_jonadab_01 spider_sword_celso_junio_01
    stambecco_valdostano_arc_01 surfboard_jurgen_01 t-shirt_03 tower tree_01 turban_jure_kodzoman_
    violin_mo_01 wrench_jarno_vasamaa_01""".split()
)
NOT_A_TITLE = re.compile(r"Clip ?art\b.*|Cliparts|collection|Icons|Rollandin|theme", re.I)
LARGEST = 16_000_000  # pixels of a PNG that is still decoded


def read(png_folder: Path, svg_folder: Path) -> list[Picture]:
    root, drawings = png_folder / "usr/share/openclipart/png", svg_folder / "usr/share/openclipart/svg"
    pictures, seen = [], set()
    for image in candidates(root):
        inside = image.relative_to(root)
        svg = drawings / inside.with_suffix(".svg")
        title = title_of(svg) if svg.is_file() else ""
        name = inside.stem if NOT_A_TITLE.search(title) else title
        label = CAPTIONS.get(inside.stem) or label_of(name)
        digest = hashlib.sha256(image.read_bytes()).digest() if label else b""
        if label and digest not in seen:
            seen.add(digest)
            path, load = f"openclipart/{inside.as_posix()}", partial(load_picture, image, svg)
            kind, phrase, group = "drawing", with_article(label), group_of(label)
            pictures.append(Picture(path, "openclipart", "openclipart", kind, load, phrase, group))
    return pictures


def candidates(root: Path) -> Iterator[Path]:
    for image in sorted(root.rglob("*.png")):
        inside = image.relative_to(root)
        wanted = inside.parts[0] in FOLDERS and not ICONS.match(inside.as_posix())
        if wanted and inside.stem not in LEFT_OUT and not image.is_symlink():
            yield image


def title_of(svg: Path) -> str:
    found = re.search(r"<dc:title[^>]*>(.*?)</dc:title>", svg.read_text("utf-8", errors="replace"), re.S)
    return html.unescape(found[1]).strip() if found else ""


def label_of(title: str) -> str:
    """'Lemon_02 (B and W)' -> 'lemon'; empty where it is no plain English name of a thing."""
    plain = re.sub(r"\(.*?\)|\bB[_ ]W\b|\bbw\b|[#_\s]+", " ", title)
    plain = re.sub(r"[\s\d-]+$", "", plain).strip().lower()
    plain = re.sub(r"^(?:(?:an?|another|the|my|color|cartoon|simple|stylized) )+", "", plain)
    plain = " ".join(plain.split())
    label = CAPTIONS.get(plain, plain)
    words = label.split()
    known = all(word in MODIFIERS or word in ADJECTIVES or singular(word) in GROUPS_OF for word in words[:-1])
    return label if plain in CAPTIONS or (words and known and group_of(label)) else ""


def group_of(label: str) -> str:
    """'slice of lemon' -> 'fruit'; empty where the noun is not known."""
    words = concept_of(label).split()
    names = (" ".join(words[-2:]), words[-1], singular(words[-1]))
    return next((GROUPS_OF[name] for name in names if name in GROUPS_OF), "")


def load_picture(image: Path, svg: Path) -> Image.Image:
    """The PNG, or the SVG where the PNG is so large that Pillow would refuse it."""
    with image.open("rb") as file:
        header = file.read(24)
    width, height = int.from_bytes(header[16:20]), int.from_bytes(header[20:24])
    if width * height > LARGEST:
        return render_svg(svg)
    with Image.open(image) as opened:
        rgba = opened.convert("RGBA")
    rgba = rgba.crop(rgba.getchannel("A").getbbox())  # many are a small drawing on a large page
    rgba.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return rgba
