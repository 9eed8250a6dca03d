"""The closed vocabulary of the spoken and rendered words, by group.

Words that sound alike (two, to) occur alone only under the spelling in `SPOKEN_ALONE`; the other is left to phrases.
British spelling: colour, grey.
"""

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEENS = (
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
COLOURS = (
    "red", "green", "blue", "yellow", "orange", "purple", "pink", "brown", "black", "white", "grey", "cyan",
)  # fmt: skip
SHAPES = (
    "circle", "square", "triangle", "rectangle", "star", "heart", "cross", "diamond", "oval", "ring", "hexagon",
    "arrow",
)  # fmt: skip
PLURALS = {shape: shape + ("es" if shape == "cross" else "s") for shape in SHAPES}
DIRECTIONS = ("left", "right", "up", "down", "north", "south", "east", "west")
PLACES = ("top", "bottom", "middle", "above", "below", "beside", "first", "last", "next")
SIZES = ("small", "large", "big", "tiny", "long", "short")
QUALITIES = ("fast", "slow", "loud", "quiet", "hot", "cold", "new", "old", "good", "happy")
ANIMALS = ("cat", "dog", "bird", "fish", "horse", "cow", "mouse", "lion", "bear", "duck", "sheep", "rabbit")
THINGS = (
    "door", "window", "light", "lamp", "music", "table", "chair", "book", "cup", "car", "bus", "train", "ball", "box",
    "house", "tree", "clock", "radio", "phone", "camera", "key", "apple", "water", "flower", "garden", "kitchen",
)  # fmt: skip
COMMANDS = (
    "open", "close", "start", "stop", "play", "turn", "go", "move", "show", "find", "count", "call", "say", "send",
    "pick", "put", "take", "give", "press", "wait", "save", "help", "repeat", "on", "off",
)  # fmt: skip
TIMES = ("today", "tomorrow", "morning", "evening", "night", "minute", "day")
NOUNS = ("colour", "shape", "number", "picture", "word", "sound", "animal", "object", "objects", "page")
FUNCTION_WORDS = (
    "the", "a", "an", "is", "are", "what", "where", "how", "many", "there", "and", "of", "to", "in", "which", "please",
    "it", "this", "that", "not", "yes", "no", "you", "me", "at", "with", "hundred", "plus", "minus", "hello", "do",
    "can",
)  # fmt: skip

NUMBERS = (*DIGITS, *TEENS, *TENS)
CONTENT_WORDS = (
    *NUMBERS, *COLOURS, *SHAPES, *DIRECTIONS, *PLACES, *SIZES, *QUALITIES, *ANIMALS, *THINGS, *COMMANDS, *TIMES, *NOUNS,
)  # fmt: skip
VOCABULARY = (*CONTENT_WORDS, *PLURALS.values(), *FUNCTION_WORDS)

_ONLY_IN_PHRASES = {"to", "a", "an", "the", "of"}
SPOKEN_ALONE = tuple(word for word in VOCABULARY if word not in _ONLY_IN_PHRASES)


def number_words(value: int) -> list[str]:
    """The words of a whole number 0..199: 105 -> one hundred and five."""
    if value >= 100:
        rest = value % 100
        return [DIGITS[value // 100], "hundred", *(["and", *number_words(rest)] if rest else [])]
    if value < 10:
        return [DIGITS[value]]
    if value < 20:
        return [TEENS[value - 10]]
    tens = TENS[value // 10 - 2]
    return [tens] if value % 10 == 0 else [tens, DIGITS[value % 10]]
