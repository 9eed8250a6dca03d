"""Sound files (WAV, FLAC, Ogg, AIFF, CAF, AU, raw) to blocks of samples, decoded by libsndfile.

Lengths in headers are believed only where the format states them exactly. What a header promises and the file does not
hold is an error, not a shorter recording; the library itself reads what is there and says nothing.
"""

import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from mimo_cli.errors import MediaError
from mimo_cli.media.libraries import soundfile
from mimo_cli.media.samples import Samples, SoundStream
from mimo_cli.media.source import Source, check_is_file

BLOCK_VALUES = 1 << 18
"""Samples of a block, all channels together: 1 MiB."""

_EXACT = frozenset({"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "RAW"})
_FLOATS = frozenset({"FLOAT", "DOUBLE"})
_INTEGERS = frozenset({"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32"})

_STREAMED_BYTES = 0x7FFF0000
"""Sizes from here on are what programs write into a pipe, where they cannot come back to fill in the length."""

_SIZE_NAMES = "data|SSND|Data Size|riff|RIFF|Riff size|FORM"
_SHORTER = re.compile(rf"^\s*(?:{_SIZE_NAMES})\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)
"""The library's log of a chunk that is larger than the file."""

_PADDING_BYTES = 64
"""Sizes wrong by a pad byte or by a chunk header are common and cost no sample."""

_LAST_FRAMES = 1 << 14
"""Read from the end to see that it is there. Seeking to the very last sample of a long FLAC can take seconds."""

_RAW_SUBTYPES = {
    "u8": "PCM_U8",
    "s8": "PCM_S8",
    "s16": "PCM_16",
    "s24": "PCM_24",
    "s32": "PCM_32",
    "f32": "FLOAT",
    "f64": "DOUBLE",
}
_RAW_FORMAT = re.compile(rf"({'|'.join(_RAW_SUBTYPES)})(le|be)?:(\d+)(?::(\d+))?")


@dataclass(frozen=True)
class RawFormat:
    """Samples without a header: `s16le:16000:1` is encoding, rate in Hz and number of channels (1 if left out)."""

    subtype: str
    endian: str
    rate: int
    channels: int

    @classmethod
    def parse(cls, text: str) -> "RawFormat":
        """Read the spelling of the command line; raises MediaError with an example."""
        match = _RAW_FORMAT.fullmatch(text.strip().lower())
        if match is None:
            hint = f"write it like s16le:16000:1 (encodings: {', '.join(_RAW_SUBTYPES)}; le or be)"
            raise MediaError(f"`{text}` is not a raw sound format", hint=hint)
        encoding, endian, rate, channels = match.groups()
        return cls(_RAW_SUBTYPES[encoding], "BIG" if endian == "be" else "LITTLE", int(rate), int(channels or 1))


def open_sound_file(source: Source, name: str, raw: RawFormat | None = None) -> SoundStream | str:
    """Find out how a sound file is stored, or return why the library cannot read it.

    WAV and Ogg may hold codecs that FFmpeg knows, so that is no error yet. Raises MediaError if samples that the
    header promises are missing.
    """
    try:
        with _sound_file(source, raw) as file:
            if file.subtype.startswith("MPEG"):
                return "MPEG sound is left to FFmpeg"  # here its decoder writes to the terminal
            _check_sizes(file, name)
            is_exact = file.format in _EXACT and file.subtype in _FLOATS | _INTEGERS and file.frames < 2**62
            if is_exact:
                _check_end(file, name)
            return SoundStream(
                name,
                file.samplerate,
                file.channels,
                file.frames if is_exact else None,
                file.subtype in _FLOATS,
                partial(_read_blocks, source, raw, name),
            )
    except (soundfile.SoundFileError, ValueError, TypeError) as err:
        return getattr(err, "error_string", str(err)).removeprefix("Error : ").rstrip(".")


def _sound_file(source: Source, raw: RawFormat | None) -> "soundfile.SoundFile":
    stored = {} if raw is None else {
        "format": "RAW",
        "subtype": raw.subtype,
        "endian": raw.endian,
        "samplerate": raw.rate,
        "channels": raw.channels,
    }  # fmt: skip
    if isinstance(source, bytes):
        return soundfile.SoundFile(io.BytesIO(source), **stored)
    # A descriptor has no name, from whose ending the library would guess.
    check_is_file(source)
    return soundfile.SoundFile(os.open(source, os.O_RDONLY | getattr(os, "O_BINARY", 0)), **stored)


def _check_sizes(file: "soundfile.SoundFile", name: str) -> None:
    for promised, found in ((int(a), int(b)) for a, b in _SHORTER.findall(file.extra_info)):
        if found + _PADDING_BYTES < promised < _STREAMED_BYTES:
            raise _truncated(name, f"its header promises {promised} bytes, {found} are there")


def _check_end(file: "soundfile.SoundFile", name: str) -> None:
    """Read the last samples promised: cheap, and it finds a FLAC that was cut before anything is encoded."""
    last = min(file.frames, _LAST_FRAMES)
    try:
        file.seek(file.frames - last)
        is_there = len(file.read(last, dtype="float32", always_2d=True)) == last
    except soundfile.SoundFileError:
        is_there = False
    if not is_there:
        raise _truncated(name, f"its header promises {file.frames} samples, the last of them are not there")


def _read_blocks(source: Source, raw: RawFormat | None, name: str) -> Iterator[Samples]:
    with _sound_file(source, raw) as file:
        done = 0
        while True:
            try:
                block = file.read(max(1, BLOCK_VALUES // file.channels), dtype="float32", always_2d=True)
            except soundfile.SoundFileError as err:
                raise _truncated(name, f"it cannot be decoded from {done / file.samplerate:.2f} s on") from err
            if not len(block):
                break
            done += len(block)
            yield block


def _truncated(name: str, what: str) -> MediaError:
    return MediaError(f"{name} is truncated or damaged: {what}", hint="copy or download it again")
