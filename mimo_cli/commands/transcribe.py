"""`mimo transcribe`: the command line to a request; the work is done in speech_jobs.

FILE -> Recording -> Transcriber (clips, one chat request each) -> Segment -> TranscriptFiles
"""

from typing import Annotated

import typer

from mimo_cli.commands.model_choice import choose_model
from mimo_cli.commands.options import GeneralOptions, ModelOptions
from mimo_cli.commands.subtitles import LineLimits
from mimo_cli.commands.transcribe_request import CuttingOptions, SpeechOptions, TranscribeRequest, WritingOptions
from mimo_cli.commands.transcript_files import TranscriptStyle, parse_formats, plan_targets
from mimo_cli.errors import UsageError

EXAMPLES = (
    "mimo transcribe talk.mp3",
    "mimo transcribe *.m4a --format srt,json -o transcripts/",
    "ffmpeg -i film.mp4 -f wav - | mimo transcribe - -f vtt > film.vtt",
)


def transcribe(
    writing: WritingOptions,
    speech: SpeechOptions,
    cutting: CuttingOptions,
    model: ModelOptions,
    general: GeneralOptions,
    files: Annotated[list[str] | None, typer.Argument(metavar="FILE...", help="Sound or video; - is stdin.")] = None,
) -> int:
    """Write down speech from recordings and videos: text, subtitles or JSON.

    Any container that FFmpeg reads will do (wav, mp3, flac, ogg, m4a, mp4, ...); of a video the sound track is taken.
    Long recordings are cut at quiet places; times are those of the cuts, so they are approximate. Without -o
    everything goes to stdout; JSON is then one object a line for each file. What was written down before an early end
    (Ctrl-C, damage) is kept.

    Exit codes: 0 done, 2 wrong usage or input, 3 model files missing or damaged, 5 some files failed, 130 Ctrl-C.
    """
    terminal = general.terminal()
    model.limit_threads()
    if not files:
        raise UsageError("there is nothing to transcribe", hint="mimo transcribe FILE, or - for stdin")
    request = TranscribeRequest(
        choose_model(model.model),
        tuple(files),
        tuple(plan_targets(files, parse_formats(writing.format_names), writing.output)),
        TranscriptStyle(writing.timestamps, LineLimits(writing.max_line_width, writing.max_line_count)),
        speech,
        cutting,
        model,
    )
    from mimo_cli.commands.speech_jobs import SpeechJobs

    return SpeechJobs(request, terminal).run()
