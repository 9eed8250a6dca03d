"""Prose: names, plain words and filler sentences for the text tasks. Nothing in the filler answers a question."""

from training.data.dice import Dice

NAMES = (
    "Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Ida", "Jack", "Kate", "Leo", "Maria", "Noah",
    "Olga", "Paul", "Rosa", "Sam", "Tina", "Victor", "Wendy", "Alex", "Bella", "Carl", "Diana", "Eric", "Fiona",
    "George", "Helen", "Ivan", "Julia", "Kevin", "Laura", "Mark", "Nina", "Oscar", "Peter", "Ruth", "Sofia", "Tom",
)  # fmt: skip
TOWNS = (
    "Paris", "London", "Berlin", "Rome", "Madrid", "Vienna", "Oslo", "Lisbon", "Athens", "Dublin", "Tokyo", "Beijing",
    "Delhi", "Cairo", "Boston", "Chicago", "Sydney", "Prague", "Warsaw", "Helsinki", "Geneva", "Milan", "Lima", "Seoul",
)  # fmt: skip
PLAIN_WORDS = (
    "apple", "river", "stone", "cloud", "paper", "bread", "chair", "glass", "horse", "light", "mouse", "night", "ocean",
    "piano", "queen", "robot", "snake", "table", "train", "water", "bird", "book", "cake", "door", "fish", "gate",
    "hill", "king", "lamp", "milk", "moon", "nest", "park", "rain", "rose", "salt", "ship", "snow", "star", "tree",
    "wall", "wind", "wolf", "cat", "dog", "sun", "map", "key", "cup", "hat", "egg", "box", "bus", "pen", "garden",
    "window", "yellow", "flower", "winter", "summer", "orange", "silver", "bridge", "forest", "market", "kitchen",
    "doctor", "letter", "island", "camera", "banana", "carpet", "dragon", "engine", "finger", "guitar", "hammer",
    "jacket", "ladder", "mirror", "needle", "pencil", "rabbit", "school", "ticket", "valley", "wagon", "zebra", "lemon",
    "candle",
)  # fmt: skip
THINGS = (
    "lamp", "door", "safe", "bicycle", "locker", "radio", "suitcase", "garage", "phone", "printer", "cupboard", "boat",
    "gate", "computer", "car", "desk", "tower", "office", "cellar", "shed", "freezer", "drawer", "cabin", "wardrobe",
)  # fmt: skip
JOBS = (
    "doctor", "teacher", "baker", "farmer", "painter", "driver", "nurse", "cook", "pilot", "singer", "gardener",
    "judge",
)  # fmt: skip
COMMON_VERBS = (
    "get", "set", "find", "make", "open", "check", "send", "start", "read", "write", "list", "count", "move", "update",
    "create", "delete", "show", "run", "load", "print",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_WHO = (
    "The old man", "A young woman", "My neighbour", "The teacher", "A small child", "The doctor", "The farmer",
    "A tourist", "The baker", "Our driver", "The gardener", "A student", "The captain", "The painter", "Somebody",
    "The postman",
)  # fmt: skip
_DID = (
    "walked along", "looked at", "thought about", "talked about", "waited near", "passed by", "sat beside",
    "read about", "wrote about", "dreamed of", "went past", "asked about", "heard of", "pointed at", "stood near",
    "slept near",
)  # fmt: skip
_WHAT = (
    "the river", "the quiet street", "the old bridge", "the market", "the long road", "the wooden fence",
    "the little shop", "the green hill", "the railway station", "the tall trees", "the empty house",
    "the village school", "the wide field", "the harbour", "the stone wall", "the narrow path",
)  # fmt: skip
_WHEN = (
    "in the morning", "after lunch", "before dinner", "on a rainy day", "every summer", "last winter", "for an hour",
    "without a word", "with a smile", "again and again", "late at night", "at noon", "for a while", "once a week",
)  # fmt: skip
_WEATHER = (
    "It was a calm day.", "The wind was cold.", "Then it began to rain.", "The sky was clear.",
    "Nobody was in a hurry.", "The birds were singing.", "It was getting dark.", "The air was fresh.",
    "Nothing else happened.", "Time passed slowly.",
)  # fmt: skip


def filler(dice: Dice) -> str:
    """One sentence that says nothing of use."""
    if dice.chance(0.15):
        return dice.pick(_WEATHER)
    return f"{dice.pick(_WHO)} {dice.pick(_DID)} {dice.pick(_WHAT)} {dice.pick(_WHEN)}."
