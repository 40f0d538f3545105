"""The wordings that questions are drawn from, about ten a task; {x} is a noun phrase or four of them, {a} and {b} are two
things in one picture.
"""

NAME = [
    "What is this?", "What is in the picture?", "What does the picture show?", "What can you see?",
    "Name what you see.", "What is shown here?", "What do you see in this image?", "What is it?",
    "What am I looking at?", "Can you tell me what this is?", "Identify the object in the picture.",
    "What object is this?", "what is this", "What's this?", "What does this image show?",
]  # fmt: skip
DESCRIBE = [
    "Describe the picture.", "Describe this image.", "Give a short description of the picture.",
    "Write a caption for this picture.", "Describe what you see.", "Caption this image.",
    "Tell me about this picture.", "What would be a good caption?", "Describe the image in one sentence.",
    "Give me a description of this image.", "How would you describe this picture?",
]  # fmt: skip
CATEGORY = [
    "What kind of thing is this?", "What category does it belong to?", "What type of thing is shown?",
    "What sort of thing is it?", "Which category fits the picture?", "What class of things is this?",
    "What kind of thing can you see?", "To which group of things does it belong?",
    "What sort of thing is in the picture?", "What type of thing is it?",
]  # fmt: skip
IS_THERE = [
    "Is there {x} in the picture?", "Is there {x} in this image?", "Can you see {x}?",
    "Does the picture show {x}?", "Is this {x}?", "Is {x} in the picture?", "Do you see {x} here?",
    "Does this image contain {x}?", "Is there {x} here?", "Is it true that there is {x} in the picture?",
]  # fmt: skip
CHOOSE = [
    "Is it {x}?", "Which is it: {x}?", "What is this: {x}?", "Is this {x}?", "Choose one: {x}?",
    "What do you see, {x}?", "Which of these is in the picture: {x}?", "Pick the right one: {x}?",
    "What does the picture show: {x}?", "Which one is shown, {x}?",
]  # fmt: skip
COLOUR = [
    "What color is it?", "What colour is it?", "What is its color?", "What is the main color?",
    "What color is the object?", "Which color is it mostly?", "What is the main colour of this?",
    "What color do you see most?", "What color is this?", "Name its color.",
]  # fmt: skip
COLOUR_OF = [
    "What color is the {x}?", "What colour is the {x}?", "What is the color of the {x}?",
    "Which color is the {x}?", "What color does the {x} have?", "Name the color of the {x}.",
    "What is the main colour of the {x}?", "The {x} is what color?", "Which colour does the {x} have?",
    "Tell me the color of the {x}.",
]  # fmt: skip
HOW_MANY = [
    "How many {x} are there?", "How many {x} are in the picture?", "How many {x} do you see?",
    "How many {x} can you see?", "Count the {x}.", "What is the number of {x}?", "How many {x} does it show?",
    "How many {x} are in this image?", "How many {x} are shown?", "Can you count the {x}?",
]  # fmt: skip
WHERE = {
    "across": [
        "Is {a} to the left or to the right of {b}?", "Is {a} left or right of {b}?",
        "On which side of {b} is {a}, left or right?", "Is {a} on the left or on the right?",
        "Is {a} on the left or right side of the picture?", "Where is {a}, to the left or to the right of {b}?",
    ],
    "down": [
        "Is {a} above or below {b}?", "Is {a} over or under {b}, above or below?",
        "Where is {a}, above or below {b}?", "Is {a} above {b} or below it?",
        "Does {a} stand above or below {b}?", "Seen from {b}, is {a} above or below?",
    ],
}  # fmt: skip
WHICH_SIDE = {
    "left": ["Which is on the left, {a} or {b}?", "What is on the left side, {a} or {b}?",
             "Which of the two is further left, {a} or {b}?"],
    "right": ["Which is on the right, {a} or {b}?", "What is on the right side, {a} or {b}?",
              "Which of the two is further right, {a} or {b}?"],
    "above": ["Which is above the other, {a} or {b}?", "What is at the top, {a} or {b}?",
              "Which of the two is higher up, {a} or {b}?"],
    "below": ["Which is below the other, {a} or {b}?", "What is at the bottom, {a} or {b}?",
              "Which of the two is lower down, {a} or {b}?"],
}  # fmt: skip
ACTION = [
    "What is happening?", "What is going on in the picture?", "What are they doing?",
    "What is being done here?", "What activity is this?", "What activity does the picture show?",
    "What is going on here?", "Name the activity.", "What action is shown?",
    "What is being done in the picture?",
]  # fmt: skip
KIND_WORDS = {
    "photo": "photo", "drawing": "drawing", "render": "3D picture", "synthetic": "drawing",
    "composited": "picture",
}  # fmt: skip
ASKABLE = {
    "mammal": "animal", "bird": "bird", "reptile": "animal", "sea animal": "animal", "insect": "animal",
    "flower": "flower", "plant": "plant", "fruit": "fruit", "vegetable": "vegetable", "vehicle": "vehicle",
    "tool": "tool", "music": "musical instrument", "building": "building",
}  # fmt: skip
SHORT = [
    "Describe the picture in a few words.", "Give a very short caption.", "Caption it briefly.",
    "What is in the picture, in short?", "Write a short caption.", "In a few words, what does the picture show?",
]  # fmt: skip
LONG = [
    "Describe the picture in detail.", "Give a detailed description.", "Describe the scene.", "Write a long caption.",
    "Tell me in detail what you see.", "Describe everything that matters in this picture.",
]  # fmt: skip
HAPPENING = [
    "What is happening?", "What is going on in the picture?", "What is happening here?", "What is going on here?",
    "What happens in this picture?", "Tell me what is going on.",
]  # fmt: skip
DOING = [
    "What is the {x} doing?", "What does the {x} do?", "Can you tell me what the {x} is doing?",
    "What is the {x} in the picture doing?",
]  # fmt: skip
IS_VISIBLE = ["Can you see {x}?", "Is {x} in the picture?", "Is {x} visible?", "Do you see {x} here?"]
WHICH_KIND = [
    "Which kind of {x} is it?", "What kind of {x} is this?", "What type of {x} is it?", "Which {x} is this, exactly?",
]  # fmt: skip
LIST_THINGS = [
    "What things are in the picture?", "Name the things you can see.", "List the objects in the picture.",
    "Which objects can you see?", "What objects are there?", "Which things does the picture show?",
]  # fmt: skip
SIDE = [
    "Is {a} on the left or on the right?", "On which side of the picture is {a}, left or right?",
    "Is {a} on the left or right side of the picture?", "Where is {a}, on the left or on the right?",
]  # fmt: skip
HEIGHT = [
    "Is {a} at the top or at the bottom of the picture?", "Where is {a}, at the top or at the bottom?",
    "Is {a} in the upper or in the lower part of the picture?",
]  # fmt: skip
BESIDE = {
    "left": ["What is to the left of {b}?", "What is on the left of {b}?", "What stands left of {b}?"],
    "right": ["What is to the right of {b}?", "What is on the right of {b}?", "What stands right of {b}?"],
}  # fmt: skip
LARGEST = [
    "What is the largest thing in the picture?", "What is the biggest thing here?", "Which thing is the largest?",
    "What takes up most of the picture?",
]  # fmt: skip
ELSE = [
    "What else is there besides {a}?", "Apart from {a}, what can you see?", "What else can you see besides {a}?",
    "What else does the picture show, besides {a}?",
]  # fmt: skip
COVERS = [
    "What covers most of the picture?", "What takes up most of the picture?", "What fills most of the picture?",
    "Which thing covers the largest part of the picture?",
]  # fmt: skip
PLACE = [
    "What kind of place is this?", "Where was this picture taken?", "What place is it?", "What kind of scene is this?",
    "What sort of place does the picture show?", "Which room or place is this?",
]  # fmt: skip
IN_OR_OUT = [
    "Is it indoors or outdoors?", "Was the picture taken indoors or outdoors?", "Is this indoors or outdoors?",
    "Is the scene inside or outside, indoors or outdoors?",
]  # fmt: skip
IS_INDOORS = ["Is it indoors?", "Is this indoors?", "Was it taken indoors?", "Are we inside a building?"]
IS_OUTDOORS = ["Is it outdoors?", "Is this outdoors?", "Was it taken outdoors?", "Are we outside?"]
WHERE_IS = ["Where is {a}?", "Where in the picture is {a}?", "Where can I see {a} in the picture?"]
