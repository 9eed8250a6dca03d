"""Speech to segments: a recording cut into clips, each clip one chat request, its text cleaned of loops.

The model has no transcription mode: a clip and an instruction make an ordinary user turn, the clip first, thinking off,
greedy. Clips share nothing but the system text, so a mistake in one does not run on into the next.
Source: audio specification, section 11.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from mimo_cli.chat.conversation import Conversation
from mimo_cli.chat.events import TextDelta
from mimo_cli.chat.messages import AudioPart, Message
from mimo_cli.commands.repeats import cut_repeats, is_looping
from mimo_cli.commands.subtitles import Segment
from mimo_cli.dialogue import Dialogue, TurnOptions
from mimo_cli.media.audio import Recording
from mimo_cli.media.splitter import AudioClip, SplitOptions, split_recording

INSTRUCTION = "Please transcribe this audio file"
"""One of the instructions the family was trained with."""

MAX_TOKENS_PER_S = 25
_EXTRA_TOKENS = 64
"""A clip's text is bounded: fast speech has some six tokens a second, so this only stops what runs on."""

_LOOK_EVERY_TOKENS = 16

_LANGUAGES = {
    "ar": "Arabic",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sv": "Swedish",
    "th": "Thai",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "vi": "Vietnamese",
    "yue": "Cantonese",
    "zh": "Chinese",
}


@dataclass(frozen=True)
class SpeechTask:
    """What is to be done with speech: written down, or translated to `translate_to`.

    `language` is what is spoken, `prompt` names and terms that may occur.
    """

    language: str | None = None
    translate_to: str | None = None
    prompt: str | None = None

    @property
    def instruction(self) -> str:
        """The text that follows each clip."""
        text = INSTRUCTION
        if self.translate_to:
            text = (
                f"Please translate this audio file into {language_name(self.translate_to)}. Write the translation only"
            )
        if self.language:
            text += f". The language spoken is {language_name(self.language)}"
        if self.prompt:
            text += f". Names and terms that may occur: {self.prompt}"
        return text


def language_name(code: str) -> str:
    """Return the English name of a language code such as `de` or `pt-BR`; any other word stands for itself."""
    return _LANGUAGES.get(code.lower().split("-")[0].split("_")[0], code)


class Transcriber:
    """Writes recordings down with one model. `on_text` hears how far the clip under way is; `warn` takes warnings."""

    def __init__(
        self,
        dialogue: Dialogue,
        task: SpeechTask,
        options: TurnOptions,
        *,
        on_progress: Callable[[float], None] = lambda done_s: None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._dialogue = dialogue
        self._task = task
        self._options = options
        self._on_progress = on_progress
        self._warn = warn

    def segments(self, recording: Recording, split: SplitOptions) -> Iterator[Segment]:
        """Yield the segments of a recording, each when it is written. Raises what decoding and the engine raise."""
        for clip in split_recording(recording, split):
            self._on_progress(clip.start_s)
            yield Segment(clip.start_s, clip.end_s, self._text_of(clip))
            self._on_progress(clip.end_s)

    def _text_of(self, clip: AudioClip) -> str:
        message = Message.of("user", AudioPart(clip.audio), self._task.instruction)
        self._dialogue.conversation = Conversation([message])
        answer = self._dialogue.answer(self._bounded(clip))
        text, next_look = "", _LOOK_EVERY_TOKENS
        for event in answer:
            self._on_progress(clip.start_s)
            if isinstance(event, TextDelta) and event.kind == "content":
                text += event.text
            if answer.finished is None and answer.stats.generated_tokens >= next_look:
                next_look += _LOOK_EVERY_TOKENS
                if is_looping(text):
                    answer.stop()
        if answer.finished and answer.finished.finish_reason in ("length", "context"):
            self._warn(f"the text from {clip.start_s:.0f} s to {clip.end_s:.0f} s ran on and was cut")
        return self._without_loops(clip, text)

    def _bounded(self, clip: AudioClip) -> TurnOptions:
        if self._options.sampling.max_tokens is not None or self._options.thinking:
            return self._options
        limit = round((clip.end_s - clip.start_s) * MAX_TOKENS_PER_S) + _EXTRA_TOKENS
        return replace(self._options, sampling=replace(self._options.sampling, max_tokens=limit))

    def _without_loops(self, clip: AudioClip, text: str) -> str:
        cut, dropped = cut_repeats(text)
        if dropped:
            self._warn(f"{dropped} repeats were cut from the text from {clip.start_s:.0f} s to {clip.end_s:.0f} s")
        return cut.strip()
