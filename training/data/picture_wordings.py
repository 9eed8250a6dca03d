"""Picture wordings: how the questions about drawn objects are put; eight or more ways each, three kept for judging."""

from training.data.dice import Dice
from training.data.wording import Wording

_CORNERS = (
    "at the {place}",
    "in the {place}",
    "in the {place} corner",
    "at the {place} corner",
    "in the {hyphen}",
    "in the {upper}",
)
_EDGES = {
    "top": ("at the top", "in the upper part", "at the top side", "near the top"),
    "bottom": ("at the bottom", "in the lower part", "at the bottom side", "near the bottom"),
    "left": ("on the left", "at the left", "on the left side", "at the left side"),
    "right": ("on the right", "at the right", "on the right side", "at the right side"),
    "middle": ("in the middle", "in the centre", "in the center", "at the center", "at the middle"),
}


def place_phrase(place: str, dice: Dice) -> str:
    """Where something is, as people say it: `in the top left corner`, `on the left`, `in the center`."""
    if place in _EDGES:
        return dice.pick(_EDGES[place])
    upper = place.replace("top", "upper").replace("bottom", "lower")
    return dice.pick(_CORNERS).format(place=place, hyphen=place.replace(" ", "-"), upper=upper)


COLOUR_OF = Wording(
    (
        "What colour is the {shape}?", "What color is the {shape}?", "Which colour does the {shape} have?",
        "Name the colour of the {shape}.", "Tell me the color of the {shape}.", "The {shape} has what colour?",
        "What is the colour of the {shape}?", "Which color is the {shape} in this picture?",
        "In this image, what colour is the {shape}?", "What colour was used for the {shape}?", "Colour of the {shape}?",
        "There is a {shape}. What is its color?",
    ),
    (
        "Say which colour the {shape} is.", "What is the color of the {shape} in the drawing?",
        "Give the colour of the {shape}.",
    ),
)  # fmt: skip
COLOUR_OF_PLACE = Wording(
    (
        "What colour is the object {at}?", "What color is the shape {at}?", "Which colour does the thing {at} have?",
        "Name the colour of the object {at}.", "{at}, what color do you see?", "What is the color of the object {at}?",
        "What colour has the shape {at}?", "Which color is the shape {at}?",
    ),
    ("Give the colour of what is {at}.", "The object {at} has what colour?", "Which colour is {at}?"),
)  # fmt: skip
ONLY_COLOUR = Wording(
    (
        "What colour is it?", "What color is the shape?", "What colour is the object?",
        "Name the colour of the object.", "Which color does the shape have?", "What colour is this?",
        "What color is the object in the picture?", "Tell me the colour of this shape.", "Which colour do you see?",
        "What is the color of this figure?", "What is the colour of the drawn shape?",
        "In this image, what color is the object?",
    ),
    ("Say the colour of the shape.", "What colour is the thing shown here?", "The object has which color?"),
)  # fmt: skip
ONLY_SHAPE = Wording(
    (
        "What shape is it?", "What shape is this?", "Which shape is shown?", "Name the shape.",
        "What shape do you see?", "What is the shape in the picture?", "What shape is drawn here?",
        "Which figure is in the image?", "Tell me which shape this is.", "What kind of shape is this?",
        "What shape is the object?", "In this image, what shape is shown?",
    ),
    ("Say what shape is in the drawing.", "Which shape can you see here?", "What is the name of this shape?"),
)  # fmt: skip
SHAPE_OF = Wording(
    (
        "What shape is the {colour} object?", "Which shape is {colour}?", "Name the {colour} shape.",
        "What is the {colour} thing?", "The {colour} object has what shape?", "What shape is {colour}?",
        "Tell me the shape of the {colour} object.", "Which figure is {colour}?",
        "What is the shape of the {colour} object?", "In this picture, which shape is {colour}?",
        "What kind of shape is the {colour} one?", "Shape of the {colour} object?",
    ),
    ("Say which shape has the colour {colour}.", "Which object is {colour}?", "What shape has been drawn in {colour}?"),
)  # fmt: skip
AT_PLACE = Wording(
    (
        "What is {at}?", "What do you see {at}?", "Which object is {at}?", "Name the object {at}.", "What stands {at}?",
        "Describe the object {at}.", "{at} of the image, what is there?", "What can be seen {at}?",
        "Tell me what is {at}.", "What is drawn {at}?", "Which shape is {at}?", "What is {at} of the picture?",
        "What's {at}?",
    ),
    ("Look {at}: what is there?", "Which thing is found {at}?", "Say what is {at}."),
)  # fmt: skip
WHERE = Wording(
    (
        "Where is the {thing}?", "Where in the picture is the {thing}?", "In which place is the {thing}?",
        "What is the position of the {thing}?", "Tell me where the {thing} is.", "Find the {thing}. Where is it?",
        "Where do you see the {thing}?", "In which part of the image is the {thing}?", "Locate the {thing}.",
        "At which place is the {thing}?", "Where can I find the {thing}?", "Position of the {thing}?",
    ),
    ("Say where the {thing} stands.", "The {thing} is where?", "In what part of the picture can the {thing} be seen?"),
)  # fmt: skip
COUNT = Wording(
    (
        "How many objects are there?", "How many shapes are in the picture?", "Count the objects.",
        "How many shapes are there?", "How many things do you see?", "What is the number of objects?",
        "Count the shapes in this image.", "Tell me how many objects there are.", "How many figures are drawn?",
        "How many objects can you see in the image?", "How many shapes do you see?", "Number of objects?",
        "How many objects are in the picture?",
    ),
    ("Say how many shapes there are.", "How many drawn things are shown?", "Give the number of shapes in the picture."),
)  # fmt: skip
COUNT_OF = Wording(
    (
        "How many {kind} are there?", "How many {kind} are in the picture?", "Count the {kind}.",
        "How many {kind} do you see?", "What is the number of {kind}?", "Tell me how many {kind} there are.",
        "How many {kind} are shown?", "How many {kind} can you see in the image?",
        "How many {kind} does the picture have?", "Number of {kind}?", "In this image, how many {kind} are there?",
    ),
    ("Say how many {kind} there are.", "How many {kind} have been drawn?", "Give the number of {kind}."),
)  # fmt: skip
WHAT = Wording(
    (
        "What is this?", "What is in the picture?", "What do you see?", "What is shown here?",
        "What does the image show?", "Describe the picture.", "What can you see in this image?",
        "Tell me what is in the picture.", "What is drawn here?", "Describe this image.", "What is in this image?",
        "Name what you see.", "Which objects are in the picture?", "List all objects.",
        "List everything in the picture.", "Name all the shapes with their colours.",
    ),
    (
        "Say what the picture shows.", "What has been drawn?", "Give a list of the objects.",
        "What does this drawing contain?",
    ),
)  # fmt: skip
IS_THERE = Wording(
    (
        "Is there {thing}?", "Is there {thing} in the picture?", "Do you see {thing}?", "Can you see {thing}?",
        "Does the image show {thing}?", "Is {thing} in the picture?", "Does the picture contain {thing}?",
        "Is there {thing} here?", "Can {thing} be seen?", "Yes or no: is there {thing}?",
    ),
    ("Is {thing} shown?", "Say yes or no: do you see {thing}?", "Has {thing} been drawn?"),
)  # fmt: skip
IS_COLOUR = Wording(
    (
        "Is the {shape} {colour}?", "Is the colour of the {shape} {colour}?",
        "Does the {shape} have the color {colour}?", "Yes or no: is the {shape} {colour}?",
        "The {shape} is {colour}, right?", "Is the {shape} in this picture {colour}?",
        "Is it true that the {shape} is {colour}?", "Would you call the {shape} {colour}?",
    ),
    (
        "Is the {shape} drawn in {colour}?", "Say yes or no: the {shape} is {colour}.",
        "Is {colour} the color of the {shape}?",
    ),
)  # fmt: skip
SIZE = Wording(
    (
        "Is the {thing} small or large?", "What size is the {thing}?", "How big is the {thing}, small or large?",
        "Is the {thing} large or small?", "Which size does the {thing} have, large or small?", "Size of the {thing}?",
        "Tell me whether the {thing} is small or large.", "The {thing}: large or small?",
    ),
    (
        "Say if the {thing} is large or small.", "Small or large: which is the {thing}?",
        "How large is the {thing}, large or small?",
    ),
)  # fmt: skip
LARGER = Wording(
    (
        "Which object is {more}?", "Which is {more}, the {one} or the {other}?",
        "Which of the two is {more}, {one} or {other}?", "What is {more}, the {one} or the {other}?",
        "Which shape is {more}?", "Name the {more} object.", "Of the two shapes, which is {more}?",
        "Which one is {more}: the {one} or the {other}?",
    ),
    (
        "Say which of the objects is {more}.", "The {one} or the {other}: which is {more}?",
        "Which thing is the {more} one?",
    ),
)  # fmt: skip
RELATION = Wording(
    (
        "Is the {one} {side} the {other}?", "Is the {one} {side} the {other} in the picture?",
        "Yes or no: is the {one} {side} the {other}?", "Do you see the {one} {side} the {other}?",
        "Does the {one} stand {side} the {other}?", "Is it true that the {one} is {side} the {other}?",
        "Can the {one} be seen {side} the {other}?", "The {one} is {side} the {other}, right?",
    ),
    (
        "Has the {one} been drawn {side} the {other}?", "Say yes or no: the {one} is {side} the {other}.",
        "Is the {one} placed {side} the {other}?",
    ),
)  # fmt: skip
WHICH_PICTURE = Wording(
    (
        "Which picture has {thing}?", "Which picture shows {thing}?", "In which picture is {thing}?",
        "Which of the two pictures contains {thing}?", "Which image has {thing}, the first or the second?",
        "Where is {thing}, in the first or the second picture?", "Which image shows {thing}?",
        "{thing}: in which of the two pictures?", "Which of the images has {thing}?",
        "Find {thing}. Which picture is it in?",
    ),
    (
        "Say which image contains {thing}.", "Does the first or the second picture show {thing}?",
        "Which one of the pictures has {thing} in it?",
    ),
)  # fmt: skip
MORE_OBJECTS = Wording(
    (
        "Which picture has more objects?", "Which picture has more shapes?", "Which image shows more objects?",
        "In which picture are more objects?", "Which of the two pictures has more things?",
        "Which image has more shapes?", "Are there more shapes in the first or the second picture?",
        "Which picture contains more objects?",
    ),
    (
        "Say which picture has more shapes.", "Does the first or the second image have more objects?",
        "Which of the two shows more shapes?",
    ),
)  # fmt: skip
SAME = Wording(
    (
        "Are the two pictures the same?", "Do both pictures show the same?", "Are these pictures the same?",
        "Are both images equal?", "Do the two images show the same things?",
        "Is the second picture the same as the first?", "Are the images the same?",
        "Yes or no: do the pictures show the same?",
    ),
    (
        "Do the pictures show the same objects?", "Are the two images equal?",
        "Say yes or no: both pictures are the same.",
    ),
)  # fmt: skip
DIFFERENCE = Wording(
    (
        "What differs between the two pictures: colour, shape, place or count?",
        "What is different: the colour, the shape, the place or the count?",
        "How do the pictures differ: in colour, shape, place or count?",
        "What has changed: colour, shape, place or count?",
        "Compare the two images. What differs: colour, shape, place or count?",
        "What changed from the first to the second picture?", "What is the difference between the two pictures?",
        "In what do the images differ: colour, shape, place or count?", "What is different in the second picture?",
    ),
    (
        "Say what is different: count, place, shape or colour.", "Name the difference: shape, colour, count or place?",
        "How does the second image differ from the first?",
    ),
)  # fmt: skip
ODD_ONE = Wording(
    (
        "Which picture differs from the others?", "Which picture is different?",
        "Which of the three pictures is different?", "Which image differs?", "One picture is different. Which one?",
        "Find the picture that differs.", "Which image is not like the others?", "Which picture is the odd one out?",
    ),
    (
        "Say which picture differs.", "Two images are the same. Which one is not?",
        "Which one of the pictures is not the same?",
    ),
)  # fmt: skip
