"""Class names of photograph sets -> everyday names; tables made by hand.

CALTECH: class -> (name, group of words.GROUPS, other names that are right). OTHER_NAMES: what people say: the
names of ImageNet and others for it; those of no thing that one can point at stand first, behind nothing.
"""

from training.wording.words import by_name

CALTECH = {
    "Faces": ("person's face", "person", "person man woman face"), "Leopards": ("leopard", "mammal", "cat"),
    "Motorbikes": ("motorcycle", "vehicle", "bike"), "accordion": ("accordion", "music", ""),
    "airplanes": ("airplane", "vehicle", ""), "anchor": ("anchor", "other", ""), "ant": ("ant", "insect", ""),
    "barrel": ("barrel", "other", "cask keg"), "bass": ("fish", "sea animal", "bass"),
    "beaver": ("beaver", "mammal", ""), "binocular": ("binoculars", "other", "binocular"),
    "bonsai": ("bonsai tree", "plant", "bonsai tree"), "brain": ("brain", "body", ""),
    "brontosaurus": ("dinosaur", "reptile", "brontosaurus"), "buddha": ("Buddha statue", "other", "buddha statue"),
    "butterfly": ("butterfly", "insect", ""), "camera": ("camera", "electronics", ""),
    "cannon": ("cannon", "other", "gun"), "car side": ("car", "vehicle", ""),
    "ceiling fan": ("ceiling fan", "household", "fan"), "cellphone": ("cell phone", "electronics", "cellphone phone"),
    "chair": ("chair", "furniture", ""), "chandelier": ("chandelier", "household", "lamp light"),
    "cougar body": ("cougar", "mammal", "puma cat"), "cougar face": ("cougar", "mammal", "puma cat"),
    "crab": ("crab", "sea animal", ""), "crayfish": ("crayfish", "sea animal", "crawfish lobster"),
    "crocodile": ("crocodile", "reptile", "alligator"), "crocodile head": ("crocodile", "reptile", "alligator"),
    "cup": ("cup", "dishes", "mug"), "dalmatian": ("Dalmatian", "mammal", "dalmatian dog"),
    "dollar bill": ("dollar bill", "other", "bill money banknote dollar"), "dolphin": ("dolphin", "sea animal", ""),
    "dragonfly": ("dragonfly", "insect", ""), "electric guitar": ("electric guitar", "music", "guitar"),
    "elephant": ("elephant", "mammal", ""), "emu": ("emu", "bird", "ostrich"),
    "euphonium": ("euphonium", "music", "tuba horn"), "ewer": ("ewer", "dishes", "jug pitcher"),
    "ferry": ("ferry", "vehicle", "boat ship"), "flamingo": ("flamingo", "bird", ""),
    "flamingo head": ("flamingo", "bird", ""), "garfield": ("Garfield", "other", "garfield cat"),
    "gerenuk": ("gerenuk", "mammal", "antelope gazelle"), "gramophone": ("gramophone", "music", "phonograph"),
    "grand piano": ("grand piano", "music", "piano"), "hawksbill": ("hawksbill turtle", "reptile", "turtle"),
    "headphone": ("headphones", "electronics", "headphone"), "hedgehog": ("hedgehog", "mammal", ""),
    "helicopter": ("helicopter", "vehicle", ""), "ibis": ("ibis", "bird", ""),
    "inline skate": ("inline skate", "sport", "skate rollerblade"), "joshua tree": ("Joshua tree", "plant", "tree"),
    "kangaroo": ("kangaroo", "mammal", ""), "ketch": ("sailboat", "vehicle", "ketch boat ship sailboat"),
    "lamp": ("lamp", "household", ""), "laptop": ("laptop", "electronics", "computer"),
    "llama": ("llama", "mammal", "alpaca"), "lobster": ("lobster", "sea animal", ""),
    "lotus": ("lotus flower", "flower", "lotus flower"), "mandolin": ("mandolin", "music", ""),
    "mayfly": ("mayfly", "insect", "fly"), "menorah": ("menorah", "household", "candelabra candlestick"),
    "metronome": ("metronome", "music", ""), "minaret": ("minaret", "building", "tower mosque"),
    "nautilus": ("nautilus", "sea animal", "shell"), "octopus": ("octopus", "sea animal", ""),
    "okapi": ("okapi", "mammal", ""), "pagoda": ("pagoda", "building", "temple tower"),
    "panda": ("panda", "mammal", "bear"), "pigeon": ("pigeon", "bird", "dove"), "pizza": ("pizza", "food", ""),
    "platypus": ("platypus", "mammal", ""), "pyramid": ("pyramid", "building", ""),
    "revolver": ("revolver", "other", "gun pistol"), "rhino": ("rhinoceros", "mammal", "rhino"),
    "rooster": ("rooster", "bird", "chicken cock"), "saxophone": ("saxophone", "music", ""),
    "schooner": ("sailboat", "vehicle", "schooner ship boat"), "scissors": ("scissors", "tool", ""),
    "scorpion": ("scorpion", "insect", ""), "sea horse": ("seahorse", "sea animal", "seahorse"),
    "snoopy": ("Snoopy", "other", "snoopy dog"), "soccer ball": ("soccer ball", "sport", "ball football"),
    "stapler": ("stapler", "office", ""), "starfish": ("starfish", "sea animal", ""),
    "stegosaurus": ("dinosaur", "reptile", "stegosaurus"), "stop sign": ("stop sign", "other", "sign"),
    "strawberry": ("strawberry", "fruit", ""), "sunflower": ("sunflower", "flower", ""), "tick": ("tick", "insect", ""),
    "trilobite": ("trilobite", "other", "fossil"), "umbrella": ("umbrella", "household", ""),
    "watch": ("watch", "other", "clock"), "water lilly": ("water lily", "flower", "lily"),
    "wheelchair": ("wheelchair", "medical", ""), "wild cat": ("wild cat", "mammal", "wildcat cat"),
    "windsor chair": ("chair", "furniture", "chair"), "wrench": ("wrench", "tool", ""),
    "yin yang": ("yin and yang symbol", "symbol", "symbol"),
}  # fmt: skip
KINDS = {  # class -> its exact kind, where the everyday name is wider
    "bass": "a bass", "bonsai": "a bonsai", "brontosaurus": "a brontosaurus", "stegosaurus": "a stegosaurus",
    "ketch": "a ketch", "schooner": "a schooner", "windsor chair": "a Windsor chair",
    "dalmatian": "a Dalmatian", "Faces": "",
}  # fmt: skip
OTHER_NAMES = by_name("""
    : nipple, brass, velvet, web site, hook, pole, crane; African wild dog: African hunting dog; agama lizard: agama;
    airplane wing: wing; amphibious vehicle: amphibian; angelfish: rock beauty; anole: American chameleon; ATM: cash
    machine; baguette: French loaf; bandage: Band Aid; banister: bannister; barracuda: barracouta; baseball player:
    ballplayer; bathtub: tub; beach: seashore; bearskin hat: bearskin; bell tower: bell cote; bighorn sheep: bighorn;
    black widow spider: black widow; book cover: book jacket; bookstore: bookshop; bottle cap: bottlecap; bowl of
    guacamole: guacamole; bowl of soup: consomme; bra: brassiere; breastplate: cuirass; bridegroom: groom; bridge:
    steel arch bridge; butterfly: admiral, ringlet, lycaenid, sulphur butterfly, cabbage butterfly; cabbage: head
    cabbage; cairn terrier: cairn; camel: Arabian camel; camera: reflex camera; camper: recreational vehicle; candy
    store: confectionery; car grille: grille; cassette player: tape player; cat: Egyptian cat, tiger cat; cauldron:
    caldron; cell phone: cellular telephone; chest of drawers: chiffonier; clock: analog clock; clownfish: anemone
    fish; coffee pot: coffeepot; combine harvester: harvester; computer: desktop computer; computer monitor: monitor;
    computer mouse: mouse; computer screen: screen; convertible car: convertible; coot: American coot; cruise ship:
    liner; cup of espresso: espresso; cup of tea: cup; dipper: water ouzel; disc brake: disk brake; dish rack: plate
    rack; dishcloth: dishrag; drill: power drill; duck: drake; ear of corn: ear; earthstar mushroom: earthstar; egret:
    American egret; elephant: tusker; filing cabinet: file; fire truck: fire engine; fishing reel: reel; four-poster
    bed: four-poster; frog: tailed frog; gallinule: European gallinule; glass of eggnog: eggnog; glass of red wine:
    red wine; golf cart: golfcart; graduation cap: mortarboard; graduation gown: academic gown; gray fox: grey fox;
    gray parrot: African grey; gray whale: grey whale; green apple: Granny Smith; guitar pick: pick; gymnast on a
    balance beam: balance beam; gymnast on a horizontal bar: horizontal bar; gymnast on parallel bars: parallel bars;
    hair clip: hair slide; hair dryer: hand blower; half-track: half track; hammerhead shark: hammerhead; hand plane:
    plane; handheld computer: hand-held computer; hard drive: hard disc; headland: promontory; hen-of-the-woods
    mushroom: hen-of-the-woods; hoop skirt: hoopskirt; horse: sorrel; horse chestnut: buckeye; horse-drawn cart: horse
    cart; hot dog: hotdog; iguana: common iguana; instant camera: Polaroid camera; jeans: jean; jug: whiskey jug;
    keyboard: computer keyboard, space bar; lake: lakeside; laptop: notebook; lemur: Madagascar cat; light switch:
    switch; lighthouse: beacon; loafer: Loafer; lock: combination lock; loggerhead turtle: loggerhead; magnifying
    glass: loupe; man in a suit: suit; mashed potatoes: mashed potato; meatloaf: meat loaf; medicine cabinet: medicine
    chest; missile: projectile; monarch butterfly: monarch; mop: swab; mountain: alp; moving truck: moving van;
    mushroom: agaric, bolete, gyromitra; newt: eft, common newt; oil rig: drilling platform; orca: killer whale;
    orchid: yellow lady's slipper; pajamas: pajama; panda: giant panda; patas monkey: patas; pay phone: pay-phone;
    pickup truck: pickup; pig: hog; pirate ship: pirate; plate of food: plate; plate of pasta: carbonara; polar bear:
    ice bear; popsicle: ice lolly; pot pie: potpie; potted plant: pot; priest's robe: vestment; pufferfish: puffer;
    rabbit: wood rabbit; race car: racer; rapeseed field: rapeseed; ray: electric ray; red panda: lesser panda;
    rickshaw: jinrikisha; rooster: cock; rose hip: hip; ruler: rule; salmon: coho; salt shaker: saltshaker; saxophone:
    sax; semi truck: trailer truck; shipwreck: wreck; shoe store: shoe shop; shoulder bag: mailbag; sink: washbasin;
    skis: ski; slot machine: slot; slow cooker: Crock Pot; soda bottle: pop bottle; sofa bed: studio couch; solar
    panel: solar dish; soldier in uniform: military uniform; spider: black and gold garden spider, barn spider, garden
    spider; spiked helmet: pickelhaube; station wagon: beach wagon; stick insect: walking stick; stinkhorn mushroom:
    stinkhorn; sunglasses: sunglass; swimming cap: bathing cap; swimsuit: maillot; T-shirt: jersey; tabby cat: tabby;
    taxi: cab; teddy bear: teddy; telephone: dial telephone; thatched roof: thatch; threshing machine: thresher; titi
    monkey: titi; toilet paper: toilet tissue; tool box: carpenter's kit; toy store: toyshop; train: electric
    locomotive; train car: passenger car; tram: streetcar; trash can: ashcan; trifle dessert: trifle; trumpet: cornet;
    TV stand: entertainment center; typewriter: typewriter keyboard; upright piano: upright; vacuum cleaner: vacuum;
    vintage car: Model T; washing machine: washer; watch: digital watch; wheelbarrow: barrow; whiptail lizard:
    whiptail; wind chime: chime; yarn: wool
""")
RANGES = (  # WordNet numbers in ImageNet's file names, first to last -> group of words.GROUPS
    ("01440764", "01498041", "sea animal"), ("01514668", "01622779", "bird"), ("01629819", "01756291", "reptile"),
    ("01768244", "01784675", "insect"), ("01795545", "01860187", "bird"), ("01871265", "01883070", "mammal"),
    ("01910747", "01990800", "sea animal"), ("02002556", "02058221", "bird"), ("02066245", "02077923", "sea animal"),
    ("02085620", "02113978", "dog"), ("02114367", "02138441", "mammal"), ("02165105", "02281787", "insect"),
    ("02317335", "02321529", "sea animal"), ("02325366", "02510455", "mammal"), ("02514041", "02655020", "sea animal"),
)  # fmt: skip
DOGS = {
    "Boston bull": "Boston terrier", "Lhasa": "Lhasa Apso", "Leonberg": "Leonberger", "Pembroke": "Pembroke corgi",
    "Cardigan": "Cardigan corgi", "bluetick": "bluetick coonhound", "redbone": "redbone coonhound",
    "Scotch terrier": "Scottish terrier", "chow": "chow chow", "Maltese dog": "Maltese", "cairn": "cairn terrier",
    "Mexican hairless": "Mexican hairless dog", "bull mastiff": "bullmastiff", "Eskimo dog": "husky",
    "Japanese spaniel": "Japanese Chin", "clumber": "clumber spaniel", "basset": "basset hound",
}  # fmt: skip
GROCERIES = {  # label or coarse label -> (noun phrase, group); kinds of one coarse label share its entry
    "Apple": ("an apple", "fruit"), "Pear": ("a pear", "fruit"), "Melon": ("a melon", "fruit"),
    "Pepper": ("a bell pepper", "vegetable"),
    "Tomato": ("a tomato", "vegetable"), "Potato": ("a potato", "vegetable"), "Mushroom": ("a mushroom", "vegetable"),
    "Onion": ("an onion", "vegetable"), "Milk": ("milk", "drink"), "Juice": ("juice", "drink"),
    "Soy Milk": ("soy milk", "drink"), "Oat Milk": ("oat milk", "drink"),
    "Yoghurt": ("yogurt", "food"), "Soyghurt": ("soy yogurt", "food"),
    "Oatghurt": ("oat yogurt", "food"), "Sour Cream": ("sour cream", "food"),
    "Sour Milk": ("sour milk", "drink"), "Carrots": ("a carrot", "vegetable"), "Satsumas": ("a satsuma", "fruit"),
    "Red Beet": ("a red beet", "vegetable"), "Red Grapefruit": ("a red grapefruit", "fruit"),
    "Asparagus": ("asparagus", "vegetable"),
    "Aubergine": ("an eggplant", "vegetable"), "Avocado": ("an avocado", "fruit"), "Banana": ("a banana", "fruit"),
    "Cabbage": ("a cabbage", "vegetable"), "Cucumber": ("a cucumber", "vegetable"), "Garlic": ("garlic", "vegetable"),
    "Ginger": ("ginger", "vegetable"), "Kiwi": ("a kiwi", "fruit"), "Leek": ("a leek", "vegetable"),
    "Lemon": ("a lemon", "fruit"),
    "Lime": ("a lime", "fruit"), "Mango": ("a mango", "fruit"), "Nectarine": ("a nectarine", "fruit"),
    "Orange": ("an orange", "fruit"),
    "Papaya": ("a papaya", "fruit"), "Passion Fruit": ("a passion fruit", "fruit"), "Peach": ("a peach", "fruit"),
    "Pineapple": ("a pineapple", "fruit"), "Plum": ("a plum", "fruit"), "Pomegranate": ("a pomegranate", "fruit"),
    "Zucchini": ("a zucchini", "vegetable"),
}  # fmt: skip
GROCERY_KINDS = {  # label -> the answer to "Which kind of ... is it?"
    "Anjou": "an Anjou pear", "Conference": "a Conference pear", "Kaiser": "a Kaiser pear",
    "Golden Delicious": "a Golden Delicious apple",
    "Granny Smith": "a Granny Smith apple", "Pink Lady": "a Pink Lady apple", "Red Delicious": "a Red Delicious apple",
    "Royal Gala": "a Royal Gala apple", "Cantaloupe": "a cantaloupe", "Galia Melon": "a Galia melon",
    "Honeydew Melon": "a honeydew melon",
    "Watermelon": "a watermelon", "Green Bell Pepper": "a green bell pepper", "Orange Bell Pepper": "an orange bell pepper",
    "Red Bell Pepper": "a red bell pepper", "Yellow Bell Pepper": "a yellow bell pepper", "Beef Tomato": "a beef tomato",
    "Regular Tomato": "a regular tomato", "Vine Tomato": "a vine tomato", "Sweet Potato": "a sweet potato",
    "Yellow Onion": "a yellow onion",
    "Brown Cap Mushroom": "a brown cap mushroom", "Bravo Apple Juice": "apple juice", "Bravo Orange Juice": "orange juice",
    "God Morgon Apple Juice": "apple juice", "God Morgon Orange Juice": "orange juice",
    "Tropicana Apple Juice": "apple juice",
    "God Morgon Red Grapefruit Juice": "grapefruit juice", "Tropicana Golden Grapefruit": "grapefruit juice",
    "Tropicana Mandarin Morning": "mandarin juice", "Yoggi Strawberry Yoghurt": "strawberry yogurt",
    "Yoggi Vanilla Yoghurt": "vanilla yogurt",
    "Valio Vanilla Yoghurt": "vanilla yogurt", "Arla Mild Vanilla Yoghurt": "vanilla yogurt",
    "Arla Natural Yoghurt": "natural yogurt",
    "Alpro Blueberry Soyghurt": "blueberry soy yogurt", "Alpro Vanilla Soyghurt": "vanilla soy yogurt",
}  # fmt: skip
CARTONS = {
    "milk", "juice", "soy milk", "oat milk", "yogurt", "soy yogurt", "oat yogurt", "sour cream", "sour milk",
}  # fmt: skip
NO_ARTICLE = {
    "hay", "dough", "chocolate sauce", "toilet paper", "chain mail", "sunscreen", "lotion", "hair spray",
    "face powder", "perfume",
    "coral fungus", "guacamole", "meatloaf", "scuba gear", "theater curtain",
}  # fmt: skip
