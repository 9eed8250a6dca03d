"""Recordings: any sound file to a stream of 24 kHz mono samples, and that to the mel segments the model reads.

Opening decides the number of samples, hence of tokens, exactly: from the header where it can be trusted, else by
decoding once. Reading streams: a block of the file, one of the resampler and one segment are held, whatever the length.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from mimo_cli.errors import MediaError
from mimo_cli.media.audio_decode import open_stream
from mimo_cli.media.audio_file import RawFormat
from mimo_cli.media.mel import Mel, MelOptions, MelStream, segment_rows
from mimo_cli.media.resample import Resampler, resampled_length
from mimo_cli.media.samples import NoSoundError, Samples, SoundCheck, SoundStream, check_samples, mix_down
from mimo_cli.media.source import Source, settle, source_name
from mimo_cli.media.types import AudioInput

_ROWS_PER_CODE = 4
_PROBED_BLOCKS = 32
"""Blocks looked at for `notes` where nothing else asks for a whole decoding: some minutes of sound at most."""


@dataclass(frozen=True)
class AudioOptions:
    """How sound becomes tokens: the front end, mel rows of a segment, codes of a token; `raw` for headerless samples.

    Whoever knows the checkpoint fills in its numbers; the defaults are those of every published release.
    """

    mel: MelOptions = field(default_factory=MelOptions)
    segment_frames: int = 6000
    group_size: int = 4
    raw: RawFormat | None = None

    def num_tokens(self, samples: int) -> int:
        """Count the tokens of so many samples at the model's rate; segments are encoded apart, then joined."""
        segments, rest = divmod(self.mel.num_rows(samples), self.segment_frames)
        codes = segments * -(-self.segment_frames // _ROWS_PER_CODE) - (-rest // _ROWS_PER_CODE)
        return -(-codes // self.group_size)


@dataclass(frozen=True, eq=False)
class Recording:
    """An opened recording. num_samples counts mono samples at the model's rate (24 kHz) and is exact."""

    stream: SoundStream
    options: AudioOptions
    num_frames: int
    num_samples: int
    notes: tuple[str, ...]

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.num_samples / self.options.mel.sampling_rate

    def samples(self) -> Iterator[Samples]:
        """Decode and yield mono float32 blocks at the model's rate, `num_samples` in total.

        Raises MediaError for damage, NaN, or a length other than the one found when it was opened.
        """
        stream = self.stream
        resampler = Resampler(stream.rate, self.options.mel.sampling_rate)
        done = 0
        for block in stream.read_blocks():
            mono = mix_down(block)
            check_samples(mono, stream.name, stream.rate, done)
            done += len(mono)
            yield resampler.push(mono)
        if done != self.num_frames:
            raise MediaError(
                f"{stream.name} is truncated or was changed: {self.num_frames} samples expected, {done} found",
                hint="copy or download it again",
            )
        yield resampler.finish()

    def to_input(self) -> AudioInput:
        """Return what the engine reads."""
        segments = partial(mel_segments, self.samples, self.options)
        num_tokens = self.options.num_tokens(self.num_samples)
        return AudioInput(self.stream.name, self.num_samples, num_tokens, segments, self.notes)


def open_recording(source: Source, options: AudioOptions | None = None, *, name: str | None = None) -> Recording:
    """Open a sound file, the first sound track of a film, or their bytes; `name` stands for it in messages.

    Raises MediaError for anything that cannot be decoded to at least one finite sample, or is cut short.
    """
    options = options or AudioOptions()
    name = name or source_name(source)
    stream = open_stream(settle(source) if isinstance(source, Path) else source, name, options.raw)
    num_frames, notes = _scan(stream)
    num_samples = resampled_length(num_frames, stream.rate, options.mel.sampling_rate)
    return Recording(stream, options, num_frames, num_samples, notes)


def open_audio(source: Source, options: AudioOptions | None = None, *, name: str | None = None) -> AudioInput:
    """Open a recording for the engine; raises what `open_recording` raises."""
    return open_recording(source, options, name=name).to_input()


def open_sound_track(
    source: Source, options: AudioOptions | None = None, *, name: str | None = None
) -> AudioInput | None:
    """Open the sound track of a film, None if it has none or an empty one; raises MediaError if it is damaged."""
    try:
        return open_audio(source, options, name=name)
    except NoSoundError:
        return None


def input_from_samples(samples: Samples, source: str, options: AudioOptions) -> AudioInput:
    """Wrap mono samples at the model's rate, held in memory (96 kB a second)."""
    segments = partial(mel_segments, partial(iter, (samples,)), options)
    return AudioInput(source, len(samples), options.num_tokens(len(samples)), segments)


def mel_segments(read_samples: Callable[[], Iterator[Samples]], options: AudioOptions) -> Iterator[Mel]:
    """Yield the mel spectrogram of a stream of samples in pieces [<= segment_frames, n_mels], in order."""

    def rows() -> Iterator[Mel]:
        stream = MelStream(options.mel)
        for block in read_samples():
            yield stream.push(block)
        yield stream.finish()

    return segment_rows(rows(), options.segment_frames)


def _scan(stream: SoundStream) -> tuple[int, tuple[str, ...]]:
    """Count the samples per channel and note what stands out; decodes all of it only where the header does not do."""
    check, done = SoundCheck(), 0
    is_whole = stream.num_frames is None or stream.may_be_nan
    for block in islice(stream.read_blocks(), None if is_whole else _PROBED_BLOCKS):
        mono = mix_down(block)
        check_samples(mono, stream.name, stream.rate, done)
        check.add(block, mono)
        done += len(mono)
    if done == 0:
        raise NoSoundError(f"{stream.name} holds no sound (0 samples)")
    return (done if stream.num_frames is None else stream.num_frames), check.notes()
