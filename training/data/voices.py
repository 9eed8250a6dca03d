"""Voices: the speech synthesizers of the training extra and which of their voices training may hear.

Three programs, all installed as Debian packages: espeak-ng (its library, called in process, 3 ms a phrase), flite (one
process a phrase) and festival (one process a batch). None is needed to run the miniature, only to make recordings.
"""

import ctypes
import functools
import itertools
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from training.data.dice import Dice

ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-rp", "en-us-nyc", "en-029")
VARIANTS = (
    "m1", "m2", "m3", "m5", "m6", "m8", "f1", "f2", "f3", "f5", "klatt", "klatt2", "klatt3", "Andy", "Annie", "Alicia",
    "adam", "anika", "belinda", "benjamin", "boris", "caleb", "ed", "edward", "Gene", "grandma", "grandpa", "linda",
    "max", "Michael", "Mike", "paul", "pedro", "rob", "robert", "steph", "travis", "victor", "Lee", "Diogo",
)  # fmt: skip
FLITE = ("kal", "kal16", "awb", "slt")
FESTIVAL = ("kal_diphone", "cmu_us_slt_arctic_hts")

TRAINING_VOICES = (
    *(f"espeak-ng {accent}" for accent in ACCENTS),
    *(f"espeak-ng {accent}+{variant}" for accent, variant in itertools.product(ACCENTS, VARIANTS)),
    *(f"flite {name}" for name in FLITE),
    *(f"festival {name}" for name in FESTIVAL),
)
HELD_OUT_VOICES = (
    "flite rms",
    "espeak-ng en-us+f4",
    "espeak-ng en-gb-x-gbcwmd+m7",
    "espeak-ng en-gb-scotland+m4",
    "espeak-ng en+Andrea",
    "espeak-ng en-us+klatt4",
    "espeak-ng en-gb-x-rp+shelby",
    "espeak-ng en-us+david",
)

FLITE_PITCH_HZ = {"kal": 105, "kal16": 105, "awb": 128, "rms": 96, "slt": 172}
_SYNCHRONOUS, _CHARS_UTF8, _WORD_EVENT = 2, 1, 1  # espeak_AUDIO_OUTPUT, espeakCHARS_UTF8, espeakEVENT_WORD
_RATE, _PITCH, _RANGE = 1, 3, 4  # espeak_PARAMETER


@dataclass(frozen=True)
class Request:
    """Words to be spoken: `speed` 1.0 is the synthesizer's normal rate, `pitch` -1..1 with 0 its normal height."""

    text: str
    voice: str
    speed: float = 1.0
    pitch: float = 0.0


@dataclass(frozen=True)
class Utterance:
    """What was spoken: `samples` float32 at `sample_rate`; `ends_s` the end of each word, None where not known."""

    samples: np.ndarray
    sample_rate: int
    ends_s: tuple[float, ...] | None


def draw_voice(dice: Dice) -> str:
    """A training voice: plain accents, flite and festival oftener than each of the many espeak-ng variants."""
    kind = dice.uniform()
    if kind < 0.2:
        return f"espeak-ng {dice.pick(ACCENTS)}"
    if kind < 0.74:
        return f"espeak-ng {dice.pick(ACCENTS)}+{dice.pick(VARIANTS)}"
    if kind < 0.92:
        return f"flite {dice.pick(FLITE)}"
    return f"festival {dice.pick(FESTIVAL)}"


def synthesise(requests: list[Request]) -> list[Utterance]:
    """Speak every request, in order. Raises RuntimeError naming the voice when a synthesizer fails."""
    spoken: dict[int, Utterance] = {}
    for i, request in enumerate(requests):
        if request.voice.startswith("espeak-ng "):
            spoken[i] = _espeak(request)
        elif request.voice.startswith("flite "):
            spoken[i] = _flite(request)
    rest = [i for i, request in enumerate(requests) if request.voice.startswith("festival ")]
    spoken.update(zip(rest, _festival([requests[i] for i in rest]), strict=True))
    return [spoken[i] for i in range(len(requests))]


# --- espeak-ng, through its C library ---------------------------------------------------------------------------------


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h (version 1.51)."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _Espeak:
    """One initialised espeak-ng library; it has global state, so one a process."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libespeak-ng.so.1")
        self.sample_rate = self.library.espeak_Initialize(_SYNCHRONOUS, 0, None, 0)
        self._blocks: list[np.ndarray] = []
        self._starts: dict[int, int] = {}
        self._callback = _Callback(self._receive)  # kept: the library holds a bare pointer to it
        self.library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples, count, events) -> int:  # type: ignore[no-untyped-def]
        if count > 0 and samples:
            self._blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        i = 0
        while events[i].type:
            if events[i].type == _WORD_EVENT:
                self._starts.setdefault(events[i].text_position - 1, events[i].sample)
            i += 1
        return 0

    def speak(self, request: Request) -> tuple[np.ndarray, dict[int, int]]:
        """Samples int16, and the sample at which the word at each position of the text starts."""
        voice = request.voice.split(" ", 1)[1]
        if self.library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise RuntimeError(f"espeak-ng has no voice {voice}")
        self.library.espeak_SetParameter(_RATE, round(175 * request.speed), 0)
        self.library.espeak_SetParameter(_PITCH, round(50 + 25 * request.pitch), 0)
        self._blocks, self._starts = [], {}
        text = request.text.encode()
        self.library.espeak_Synth(text, len(text) + 1, 0, 1, 0, _CHARS_UTF8, None, None)
        return np.concatenate(self._blocks), self._starts


@functools.cache
def _espeak_library() -> _Espeak:
    return _Espeak()


def _espeak(request: Request) -> Utterance:
    library = _espeak_library()
    samples, starts = library.speak(request)
    positions = [match.start() for match in re.finditer(r"\S+", request.text)]
    # Some short words (in the) share one event: the time between their neighbours is shared out by letters.
    known = [position for position in positions if position in starts]
    ends = [
        np.interp(position, [*known, len(request.text) + 1], [*(starts[k] for k in known), len(samples)])
        for position in [*positions[1:], len(request.text) + 1]
    ]
    return Utterance(
        samples.astype(np.float32) / 32768,
        library.sample_rate,
        tuple(float(end) / library.sample_rate for end in ends) if known else None,
    )


# --- flite ------------------------------------------------------------------------------------------------------------


def _run_flite(request: Request, path: Path) -> list[tuple[str, float]]:
    """Write the wave file; the phones and the second at which each ends."""
    name = request.voice.split(" ", 1)[1]
    features = [f"duration_stretch={1 / request.speed:.3f}"]
    if request.pitch:
        features.append(f"int_f0_target_mean={FLITE_PITCH_HZ[name] * (1 + 0.2 * request.pitch):.1f}")
    settings = itertools.chain.from_iterable(("--setf", feature) for feature in features)
    command = ["flite", "-voice", name, "-psdur", *settings, "-t", request.text, "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not path.exists():
        raise RuntimeError(f"flite failed with voice {name}: {done.stderr.strip()}")
    return [(phone, float(end)) for phone, end in re.findall(r"(\S+):([0-9.]+)", done.stdout)]


@functools.cache
def _flite_phones(word: str) -> int:
    """How many phones flite gives a word spoken alone."""
    with tempfile.TemporaryDirectory() as folder:
        phones = _run_flite(Request(word, "flite kal16"), Path(folder) / "word.wav")
    return sum(phone != "pau" for phone, _ in phones)


def _flite(request: Request) -> Utterance:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        phones = [(phone, end) for phone, end in _run_flite(request, path) if phone != "pau"]
        samples, sample_rate = soundfile.read(path, dtype="float32")
    lasts = list(itertools.accumulate(_flite_phones(word) for word in request.text.split()))
    ends = tuple(phones[last - 1][1] for last in lasts) if lasts[-1] == len(phones) else None
    return Utterance(samples, sample_rate, ends)


# --- festival ---------------------------------------------------------------------------------------------------------

_FESTIVAL_HEAD = """
(define (speak text file)
  (let ((utt (eval (list 'Utterance 'Text text))))
    (utt.synth utt)
    (utt.save.wave utt file 'riff)
    (mapcar (lambda (word) (format t "%f " (item.feat word "word_end"))) (utt.relation.items utt 'Word))
    (format t "\\n")))
"""


def _festival(requests: list[Request]) -> list[Utterance]:
    """Speak all requests in one festival process. Its voices have one pitch each; only the speed is followed."""
    if not requests:
        return []
    with tempfile.TemporaryDirectory() as folder:
        lines = [_FESTIVAL_HEAD]
        for i, request in enumerate(requests):
            lines.append(f"(voice_{request.voice.split(' ', 1)[1]})")
            lines.append(f"(Parameter.set 'Duration_Stretch {1 / request.speed:.3f})")
            lines.append(f'(speak "{request.text}" "{folder}/{i}.wav")')
        script = Path(folder) / "speak.scm"
        script.write_text("\n".join(lines))
        done = subprocess.run(["festival", "-b", str(script)], capture_output=True, text=True, check=False)
        if done.returncode != 0 or not (Path(folder) / f"{len(requests) - 1}.wav").exists():
            raise RuntimeError(f"festival failed: {done.stderr.strip()}")
        utterances = []
        for i, (request, line) in enumerate(zip(requests, done.stdout.strip().splitlines(), strict=True)):
            samples, sample_rate = soundfile.read(f"{folder}/{i}.wav", dtype="float32")
            ends = tuple(float(end) for end in line.split())
            known = ends if len(ends) == len(request.text.split()) else None
            utterances.append(Utterance(samples, sample_rate, known))
    return utterances
