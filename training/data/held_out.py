"""Held out: the samples that a trained model is judged by.

Their seeds, voices, typefaces, combinations and half of their wordings are not those of training.
"""

import zlib

import numpy as np

from training.data import speech
from training.data.catalogue import MAKERS
from training.data.sample import Sample
from training.data.speech_clips import Recipe, make_clips

SEED_BASE = 1 << 40  # training seeds are small numbers
SPEECH = ("speech", "speech_unseen", "speech_noise")
NOISE_DB = 10.0
TASKS = (*MAKERS, *SPEECH)


def held_out(task: str, n: int, seed: int = 0) -> list[Sample]:
    """The first n held-out samples of a task of TASKS; equal seeds give equal samples.

    Speech is synthesised on the spot, known voices but for `speech_unseen`; `speech_noise` has noise at 10 dB.
    """
    number = zlib.crc32(task.encode())
    if task in SPEECH:
        recipe = Recipe(SEED_BASE + seed, "held_out", unseen=task == "speech_unseen")
        rng = np.random.default_rng([SEED_BASE + seed, number])
        noise = NOISE_DB if task == "speech_noise" else None
        return [speech.of_clip(clip, rng, "held_out", snr_db=noise) for clip in make_clips(recipe, 0, n)]
    return [MAKERS[task](np.random.default_rng([SEED_BASE + seed, number, i]), "held_out") for i in range(n)]
