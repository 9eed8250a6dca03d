"""Which decoder reads a recording: libsndfile for files made for sound, FFmpeg for containers and the rest.

The choice is made from the bytes; nothing is handed to a decoder that is not a known kind of sound or film. Streams are
opened anew for each reading, so nothing stays open and nothing decoded is kept.
"""

from mimo_cli.errors import MediaError
from mimo_cli.media.audio_container import open_container
from mimo_cli.media.audio_file import RawFormat, open_sound_file
from mimo_cli.media.resample import MAX_RATE_HZ
from mimo_cli.media.samples import NoSoundError, SoundStream
from mimo_cli.media.sniff import AUDIO_FORMATS, HEAD_BYTES, MIXED_FORMATS, VIDEO_FORMATS, identify
from mimo_cli.media.source import Source, read_head

MAX_CHANNELS = 128

_SOUND_FILES = frozenset({"wav", "flac", "aiff", "caf", "au", "w64", "ogg"})
_CONVERT = "convert it, for example with `ffmpeg -i IN -ar 48000 -ac 1 OUT.wav`"


def open_stream(source: Source, name: str, raw: RawFormat | None = None) -> SoundStream:
    """Find out how a recording (a file or its bytes) is stored and check that it decodes; messages call it `name`.

    `raw` says how samples without a header are stored. Raises MediaError for an empty or unknown file, one without
    sound or without a sample, an impossible rate or number of channels, or fewer samples than its header promises.
    """
    stream = _open_any(source, raw, name)
    if not 1 <= stream.channels <= MAX_CHANNELS:
        raise MediaError(f"{name} has {stream.channels} channels, 1 to {MAX_CHANNELS} expected", hint=_CONVERT)
    if not 1 <= stream.rate <= MAX_RATE_HZ:
        raise MediaError(f"{name} has a sample rate of {stream.rate} Hz, 1 to {MAX_RATE_HZ} expected", hint=_CONVERT)
    if stream.num_frames == 0:
        raise NoSoundError(f"{name} holds no sound (0 samples)")
    return stream


def _open_any(source: Source, raw: RawFormat | None, name: str) -> SoundStream:
    head = read_head(source, HEAD_BYTES)
    if not head:
        raise MediaError(f"{name} is empty (0 bytes)")
    if raw:
        stream = open_sound_file(source, name, raw)
        if isinstance(stream, str):
            raise MediaError(f"{name} cannot be read as raw sound: {stream}")
        return stream
    kind = identify(head)
    if kind not in AUDIO_FORMATS | VIDEO_FORMATS | MIXED_FORMATS:
        found = f"a {kind} file" if kind else "of no known kind"
        raise MediaError(f"{name} is {found}; a recording was expected", hint=_CONVERT)
    reason = ""
    if kind in _SOUND_FILES:
        stream = open_sound_file(source, name)
        if not isinstance(stream, str):
            return stream
        reason = stream
    return open_container(source, name, reason)
