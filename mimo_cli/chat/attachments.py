"""What a user names becomes a media part: a path, bytes, a data URI, or (only if allowed) an address on the net.

The kind is found from the bytes. Text files are none of this: they are text of a message.
"""

import base64
import binascii
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from mimo_cli.chat.media_options import MediaOptions
from mimo_cli.chat.messages import AudioPart, ImagePart, MediaPart, Origin, VideoPart
from mimo_cli.chat.named_files import user_path
from mimo_cli.errors import MediaError, UsageError
from mimo_cli.media.audio import open_audio
from mimo_cli.media.fetch import fetch, is_url
from mimo_cli.media.image import open_image
from mimo_cli.media.sniff import HEAD_BYTES, identify, sniff
from mimo_cli.media.source import read_head, settle
from mimo_cli.media.video import open_video

Kind: TypeAlias = Literal["image", "video", "audio"]

_NAMES: dict[Kind, str] = {"image": "a picture", "video": "a film", "audio": "a recording"}


class MediaOpener:
    """Opens media for one model. allow_net permits http(s) addresses, allow_files paths and `file:` addresses."""

    def __init__(
        self, options: MediaOptions | None = None, *, allow_net: bool = False, allow_files: bool = True
    ) -> None:
        self._options = options or MediaOptions()
        self._allow_net = allow_net
        self._allow_files = allow_files

    def open(self, reference: str | Path | bytes, kind: Kind | None = None, *, name: str | None = None) -> MediaPart:
        """Open a medium as the kind it is, or as the kind wanted: a film may be wanted for its sound alone.

        Bytes are the medium itself; `name` stands for them in messages (`standard input` otherwise). Raises UsageError
        for an address that is not allowed, MediaError for anything that is not the kind wanted or cannot be read.
        """
        origin, name = self._fetch(reference, name)
        head = read_head(origin, HEAD_BYTES)
        if not head:
            raise MediaError(f"`{name}` is empty (0 bytes)", hint="look where it was copied or downloaded from")
        is_raw = kind == "audio" and self._options.audio.raw is not None
        found = None if is_raw else sniff(origin, name=f"`{name}`")
        if kind is None and found is None:
            raise MediaError(
                f"`{name}` is no known kind of picture, film or recording",
                hint="text goes in with --file; convert other media to PNG, MP4 or WAV",
            )
        # A film may be wanted for its sound alone, and a GIF may be a picture or, where it moves, a film.
        is_other_side = (kind, found) == ("audio", "video") or (kind == "video" and identify(head) == "gif")
        if kind and found and found != kind and not is_other_side:
            raise MediaError(f"`{name}` is {_NAMES[found]}, not {_NAMES[kind]}", hint=f"attach it with --{found}")
        return self._open_as(kind or found, origin, name)

    def _open_as(self, kind: Kind | None, origin: Origin, name: str) -> MediaPart:
        if kind == "image":
            return ImagePart(open_image(origin, self._options.image, name=name), origin)
        if kind == "video":
            return VideoPart(open_video(origin, self._options.video, self._options.audio, name=name), origin)
        return AudioPart(open_audio(origin, self._options.audio, name=name), origin)

    def _fetch(self, reference: str | Path | bytes, name: str | None) -> tuple[Origin, str]:
        if isinstance(reference, bytes):
            return reference, name or "standard input"
        if isinstance(reference, str):
            scheme = urlsplit(reference).scheme.lower() if ":" in reference[:8] else ""
            if scheme == "data":
                return decode_data_uri(reference), name or "data URI"
            if is_url(reference) and scheme != "file":
                return fetch(reference, allow_net=self._allow_net), name or reference
            if scheme == "file":
                reference = unquote(urlsplit(reference).path)
        if not self._allow_files:
            raise UsageError("paths are not allowed here", hint="send the file itself as a data: URI")
        path = user_path(reference)
        return settle(path), name or str(path)


def decode_data_uri(uri: str) -> bytes:
    """Return the bytes of a `data:` URI, base64 or percent-encoded. Raises UsageError where it is malformed."""
    head, comma, body = uri.partition(",")
    if not comma:
        raise UsageError("a data: URI has no comma before its data")
    return decode_base64(body) if head.lower().endswith(";base64") else unquote_to_bytes(body)


def decode_base64(text: str) -> bytes:
    """Return the bytes that base64 text stands for; raises UsageError where it is none."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as err:
        raise UsageError(f"media data is not base64: {err}") from None
