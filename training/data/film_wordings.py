"""Film wordings: how the questions about short clips are put."""

from training.data.wording import Wording

DIRECTION = Wording(
    (
        "In which direction does the {thing} move?", "Which way does the {thing} move?",
        "Where does the {thing} go: left, right, up or down?", "What is the direction of the {thing}?",
        "Which direction does the {thing} take?", "Does the {thing} move left, right, up or down?",
        "In what direction is the {thing} moving?", "Tell me which way the {thing} goes.",
        "Which way is the {thing} going?", "The {thing} moves in which direction?",
    ),
    (
        "Say in which direction the {thing} travels.", "Left, right, up or down: how does the {thing} move?",
        "Which way does the {thing} travel?",
    ),
)  # fmt: skip
ONLY_DIRECTION = Wording(
    (
        "In which direction does it move?", "Which way does the object move?", "What is the direction of the movement?",
        "Does it move left, right, up or down?", "In what direction is the shape moving?", "Which way does it go?",
        "Tell me the direction of the movement.", "Where does the object go?", "Which direction does the object take?",
    ),
    ("Say in which direction it travels.", "Which way does the moving object travel?"),
)  # fmt: skip
MOVES = Wording(
    (
        "What moves?", "Which object moves?", "What is moving in the video?", "What moved?", "Which shape moves?",
        "What moves in this clip?", "Name the moving object.", "Tell me what moves.", "Which thing is moving?",
        "What object moves in the video?",
    ),
    ("Say what is in motion.", "Which of the objects is moving?", "What travels through the film?"),
)  # fmt: skip
HAPPENS = Wording(
    (
        "What happens in the video?", "Describe the video.", "What do you see in this clip?",
        "What is shown in the video?", "Describe the clip.", "What happens?", "Tell me what happens in this film.",
        "What is going on in the video?", "Describe what happens.",
    ),
    ("Say what the film shows.", "What can be seen in this video?"),
)  # fmt: skip
FIRST = Wording(
    (
        "What came first?", "What appears first?", "Which object came first?", "What do you see first?",
        "Which shape appears first?", "What was there first?", "Name the object that appears first.",
        "Which thing is seen first?", "What is the first object?",
    ),
    ("Say what appeared first.", "Which of the objects comes first?"),
)  # fmt: skip
LAST = Wording(
    (
        "What came last?", "What appears last?", "Which object came last?", "What do you see last?",
        "Which shape appears last?", "Name the object that appears last.", "Which thing is seen last?",
        "What is the last object?", "What came in the end?",
    ),
    ("Say what appeared last.", "Which of the objects comes last?"),
)  # fmt: skip
ORDER = Wording(
    (
        "In which order do the objects appear?", "In what order did they come?", "What is the order of the objects?",
        "List the objects in order.", "What comes first and what comes then?",
        "Name the objects in the order they appear.", "Which order do the shapes have?",
        "In which order do you see the shapes?", "What appears, and then what?",
    ),
    ("Say in which order the objects come.", "What is shown first, what next?"),
)  # fmt: skip
HOW_MANY = Wording(
    (
        "How many objects are there?", "How many shapes are in the video?", "How many objects do you see?",
        "Count the objects in the clip.", "How many things are shown?", "What is the number of objects?",
        "How many shapes does the video show?", "How many objects appear?", "Tell me how many objects there are.",
    ),
    ("Say how many shapes are in the film.", "How many different objects can be seen?"),
)  # fmt: skip
BECOMES = Wording(
    (
        "What colour does the {shape} become?", "Which color does the {shape} turn?",
        "What colour is the {shape} at the end?", "What color does the {shape} change to?",
        "To which colour does the {shape} change?", "What is the colour of the {shape} in the end?",
        "The {shape} changes its colour. What is the new one?", "What colour has the {shape} afterwards?",
    ),
    ("Say what colour the {shape} takes.", "Which colour does the {shape} finally have?"),
)  # fmt: skip
WAS = Wording(
    (
        "What colour was the {shape} at first?", "Which color does the {shape} have at the start?",
        "What colour is the {shape} in the beginning?", "What color was the {shape} before?",
        "From which colour does the {shape} change?", "What was the first colour of the {shape}?",
        "The {shape} changes its colour. What was the old one?", "At the start, what colour is the {shape}?",
    ),
    ("Say what colour the {shape} had first.", "Which colour did the {shape} start with?"),
)  # fmt: skip
WHEN = Wording(
    (
        "When does the {thing} appear?", "At what time does the {thing} appear?", "When does the {thing} come?",
        "When do you first see the {thing}?", "At which time is the {thing} first seen?",
        "What is the time when the {thing} appears?", "When is the {thing} there for the first time?",
        "Tell me when the {thing} appears.",
    ),
    ("Say at which time the {thing} shows up.", "From what time on is the {thing} there?"),
)  # fmt: skip
WHEN_GONE = Wording(
    (
        "When does the {thing} disappear?", "At what time does the {thing} disappear?",
        "When does the {thing} go away?", "When is the {thing} gone?", "At which time is the {thing} gone?",
        "What is the time when the {thing} disappears?", "From when on is the {thing} missing?",
        "Tell me when the {thing} disappears.",
    ),
    ("Say at which time the {thing} is gone.", "From what time on is the {thing} not there?"),
)  # fmt: skip
WHEN_COLOUR = Wording(
    (
        "When does the {shape} change its colour?", "At what time does the {shape} change color?",
        "When does the {shape} turn {colour}?", "At what time does the {shape} become {colour}?",
        "When is the {shape} {colour} for the first time?", "What is the time when the {shape} changes colour?",
        "Tell me when the {shape} turns {colour}.", "When does the {shape} get another colour?",
    ),
    ("Say at which time the {shape} changes colour.", "From what time on is the {shape} {colour}?"),
)  # fmt: skip
AT_TIME = Wording(
    (
        "What happened at {time}?", "What happens at {time}?", "What changes at {time}?",
        "Tell me what happens at {time}.", "At {time}, what happens?", "What is new at {time}?",
        "Which event is at {time}?", "Describe what happens at {time}.",
    ),
    ("Say what happens at {time}.", "What do you see happen at {time}?"),
)  # fmt: skip
GROWS = Wording(
    (
        "Does the {shape} get larger or smaller?", "Does the {shape} grow or shrink: larger or smaller?",
        "Is the {shape} getting larger or smaller?", "Larger or smaller: how does the {shape} change?",
        "How does the size of the {shape} change, larger or smaller?", "Does the {shape} become smaller or larger?",
        "Is the {shape} smaller or larger at the end?", "Tell me if the {shape} gets larger or smaller.",
    ),
    ("Say whether the {shape} becomes larger or smaller.", "At the end, is the {shape} larger or smaller?"),
)  # fmt: skip
WHERE_END = Wording(
    (
        "Where is the {thing} at the end?", "Where does the {thing} end?", "In which place is the {thing} at the end?",
        "Where is the {thing} in the last frame?", "What is the last position of the {thing}?",
        "Where does the {thing} stop?", "At the end, where is the {thing}?", "Where do you see the {thing} last?",
    ),
    ("Say where the {thing} is in the end.", "In what place does the {thing} finish?"),
)  # fmt: skip
WHERE_START = Wording(
    (
        "Where is the {thing} at the start?", "Where does the {thing} start?",
        "In which place is the {thing} at first?", "Where is the {thing} in the first frame?",
        "What is the first position of the {thing}?", "Where does the {thing} come from?",
        "At the beginning, where is the {thing}?", "Where do you see the {thing} first?",
    ),
    ("Say where the {thing} is in the beginning.", "In what place does the {thing} begin?"),
)  # fmt: skip
