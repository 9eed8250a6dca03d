"""Sounds that are not speech: tone, noise, silence, clicks and chirp.

Answer forms: the kind in one word; "high" or "low"; "rising" or "falling"; how many clicks in digits; yes or no.
"""

from collections.abc import Callable

import numpy as np

from training.data.acoustics import SAMPLE_RATES, coloured_noise
from training.data.dice import Dice
from training.data.sample import Sample, Sound, Split
from training.data.wording import Wording

KINDS = ("tone", "noise", "silence", "clicks", "chirp")
WHAT = Wording(
    (
        "What sound is this?", "What kind of sound is it?", "What do you hear?", "Name the sound.",
        "Which sound is in the recording?", "What is this sound?", "Describe the sound in one word.",
        "What can be heard?", "What is in this recording?", "Which kind of sound is this?",
        "Is this a tone, noise, silence, clicks or a chirp?", "Tell me what you hear.",
        "What does the recording contain?",
    ),
    ("Say what sound that is.", "Tone, noise, silence, clicks or chirp: what is it?", "How would you call this sound?"),
)  # fmt: skip
HEIGHT = Wording(
    (
        "Is the tone high or low?", "Is it a high or a low tone?", "How high is the tone, high or low?",
        "High or low tone?", "Is this tone low or high?", "Tell me whether the tone is high or low.",
        "What pitch has the tone, high or low?", "Is the pitch high or low?", "Do you hear a low or a high tone?",
    ),
    ("Say if the tone is high or low.", "Low or high: which is this tone?"),
)  # fmt: skip
SLOPE = Wording(
    (
        "Is the chirp rising or falling?", "Is the pitch rising or falling?",
        "Does the sound go up or down, rising or falling?", "Rising or falling?", "Is the tone rising or falling?",
        "Which way does the pitch go: rising or falling?", "Is the sound falling or rising?",
        "Tell me whether the pitch is rising or falling.",
    ),
    ("Say if the sound is rising or falling.", "Falling or rising: what does the pitch do?"),
)  # fmt: skip
HOW_MANY = Wording(
    (
        "How many clicks are there?", "How many clicks do you hear?", "Count the clicks.", "Number of clicks?",
        "How often does it click?", "Tell me how many clicks you hear.", "How many clicks are in the recording?",
        "What is the number of clicks?",
    ),
    ("Say how many clicks can be heard.", "How many times is there a click?"),
)  # fmt: skip
IS_IT = Wording(
    (
        "Is this {x}?", "Do you hear {x}?", "Is {x} in the recording?", "Can you hear {x}?", "Is it {x}?",
        "Yes or no: is this {x}?", "Is there {x}?", "Does the recording contain {x}?",
    ),
    ("Can {x} be heard?", "Say yes or no: is it {x}?"),
)  # fmt: skip
CALLED = {"tone": "a tone", "noise": "noise", "silence": "silence", "clicks": "clicks", "chirp": "a chirp"}
LOW_HZ, HIGH_HZ = (110.0, 380.0), (1000.0, 3200.0)


def _wave(phase: np.ndarray, dice: Dice) -> np.ndarray:
    """A wave of one of several forms over a phase in radians."""
    form = dice.pick(("sine", "sine", "sine", "square", "triangle", "organ"))
    if form == "square":
        return np.sign(np.sin(phase)) * 0.7
    if form == "triangle":
        return np.arcsin(np.sin(phase)) * (2 / np.pi)
    if form == "organ":
        return (np.sin(phase) + 0.5 * np.sin(2 * phase) + 0.25 * np.sin(3 * phase)) / 1.5
    return np.sin(phase)


def _faded(samples: np.ndarray, rate: int, dice: Dice) -> np.ndarray:
    """The sound with soft ends, in silence of its own length at most."""
    edge = min(len(samples) // 4, round(dice.uniform(0.005, 0.05) * rate))
    ramp = np.ones(len(samples))
    if edge:
        ramp[:edge] = np.linspace(0, 1, edge)
        ramp[-edge:] = np.linspace(1, 0, edge)
    lead, tail = (round(dice.uniform(0, 0.3) * rate) for _ in range(2))
    return np.pad(samples * ramp, (lead, tail))


def tone(dice: Dice, rate: int, seconds: float) -> tuple[np.ndarray, dict]:
    """A steady tone, high or low."""
    height = dice.pick(("low", "high"))
    low, high = LOW_HZ if height == "low" else HIGH_HZ
    frequency = low * (high / low) ** dice.uniform()
    if dice.chance(0.2):  # between the two: a tone, but neither high nor low
        frequency, height = dice.uniform(420, 900), ""
    phase = 2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate
    return _faded(_wave(phase, dice), rate, dice), {"height": height, "frequency_hz": frequency}


def chirp(dice: Dice, rate: int, seconds: float) -> tuple[np.ndarray, dict]:
    """A tone that rises or falls by more than an octave, once or twice."""
    low = dice.uniform(150, 700)
    high = min(low * dice.uniform(2.5, 8), 0.42 * rate)
    times = np.linspace(0, 1, round(rate * seconds))
    part = (times * 2) % 1 if dice.chance(0.2) else times
    slope = dice.pick(("rising", "falling"))
    along = part if slope == "rising" else 1 - part
    frequency = low * (high / low) ** along if dice.chance(0.5) else low + (high - low) * along
    return _faded(_wave(2 * np.pi * np.cumsum(frequency) / rate, dice), rate, dice), {"slope": slope}


def noise(dice: Dice, rate: int, seconds: float) -> tuple[np.ndarray, dict]:
    """Noise of some colour."""
    return _faded(coloured_noise(round(rate * seconds), dice), rate, dice), {}


def silence(dice: Dice, rate: int, seconds: float) -> tuple[np.ndarray, dict]:
    """Nothing, or next to it."""
    samples = np.zeros(round(rate * seconds))
    if dice.chance(0.5):
        samples += coloured_noise(len(samples), dice) * 10 ** (dice.uniform(-80, -62) / 20)
    return samples, {}


def clicks(dice: Dice, rate: int, seconds: float) -> tuple[np.ndarray, dict]:
    """Two to eight short clicks, evenly spaced or not."""
    count = dice.integer(2, 8)
    step = max(seconds / count, 0.14)
    samples = np.zeros(round(rate * (count * step + 0.25)))
    even = dice.chance(0.6)
    length = round(rate * dice.uniform(0.001, 0.012)) + 1
    click = dice.rng.standard_normal(length) * np.exp(-np.arange(length) / (0.3 * length))
    if dice.chance(0.3):
        click = np.ones(1)
    for i in range(count):
        start = round(rate * (0.05 + i * step + (0 if even else dice.uniform(-0.25, 0.25) * step * 0.5)))
        start = max(0, start)
        samples[start : start + len(click)] += click
    return samples, {"count": count}


_MAKERS: dict[str, Callable[[Dice, int, float], tuple[np.ndarray, dict]]] = {
    "tone": tone, "noise": noise, "silence": silence, "clicks": clicks, "chirp": chirp,
}  # fmt: skip


def draw_sound(dice: Dice, kind: str) -> tuple[Sound, dict]:
    """A recording of one kind, and what is known of it."""
    rate = dice.pick(SAMPLE_RATES)
    samples, facts = _MAKERS[kind](dice, rate, dice.uniform(0.5, 2.5))
    if kind != "silence":
        samples = samples / max(1e-6, float(np.abs(samples).max()))
        if kind != "noise" and dice.chance(0.35):
            samples = samples + coloured_noise(len(samples), dice) * 10 ** (dice.uniform(-55, -28) / 20)
        samples = samples * 10 ** (dice.uniform(-26, -0.5) / 20) / max(1.0, float(np.abs(samples).max()))
    return Sound(samples.astype(np.float32), rate), facts


def make(rng: np.random.Generator, split: Split, *, kind: str | None = None) -> Sample:
    """A question about a sound of one of KINDS."""
    dice = Dice(rng)
    kind = kind or dice.pick(KINDS)
    sound, known = draw_sound(dice, kind)
    asked, question, answer = "what", "", kind
    if dice.chance(0.12):
        other = kind if dice.chance(0.5) else dice.pick(KINDS)
        asked, answer = "is_it", "yes" if other == kind else "no"
        question = IS_IT.say(dice, split, x=CALLED[other])
    elif dice.chance(0.35):
        if known.get("height"):
            asked, question, answer = "height", HEIGHT.say(dice, split), known["height"]
        elif known.get("slope"):
            asked, question, answer = "slope", SLOPE.say(dice, split), known["slope"]
        elif 0 < known.get("count", 0) <= 5:
            asked, question, answer = "how_many", HOW_MANY.say(dice, split), str(known["count"])
    question = question or WHAT.say(dice, split)
    user = (question, sound) if dice.chance(0.2) else (sound, question)
    return Sample("sounds", user, answer, facts={"kind": asked, "sound": kind, **known})
