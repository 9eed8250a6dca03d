import base64
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import av
import numpy as np
import pytest

from mimo_cli.chat.attachments import Kind, MediaOpener, decode_base64, decode_data_uri
from mimo_cli.chat.media_options import MediaChoices, MediaOptions
from mimo_cli.chat.messages import AudioPart, ImagePart, VideoPart
from mimo_cli.checkpoint.processor_config import ProcessorConfig
from mimo_cli.errors import MediaError, UsageError
from tests.support.media_files import EXAMPLES

CAT, CLIP, SPEECH = EXAMPLES / "cat.jpg", EXAMPLES / "clip.mp4", EXAMPLES / "speech.flac"
OPENER = MediaOpener()


def test_the_kind_is_found_from_the_bytes(tmp_path: Path) -> None:
    for number, (path, part) in enumerate([(CAT, ImagePart), (CLIP, VideoPart), (SPEECH, AudioPart)]):
        renamed = tmp_path / f"{number}.txt"
        renamed.write_bytes(path.read_bytes())
        opened = OPENER.open(str(renamed))
        assert type(opened) is part and opened.origin == renamed
        assert opened.media.num_tokens > 0


def test_bytes_are_the_medium_itself() -> None:
    opened = OPENER.open(CAT.read_bytes())
    assert opened.media.source == "standard input" and opened.origin == CAT.read_bytes()
    assert OPENER.open(CAT.read_bytes(), name="upload").media.source == "upload"


def test_data_and_file_uris_are_opened() -> None:
    uri = "data:image/jpeg;base64," + base64.b64encode(CAT.read_bytes()).decode()
    assert OPENER.open(uri, "image").media.num_tokens == OPENER.open(CAT).media.num_tokens
    assert OPENER.open(CAT.resolve().as_uri(), "image").origin == CAT.resolve()


def test_the_sound_of_a_film_may_be_wanted_alone() -> None:
    opened = OPENER.open(CLIP, "audio")
    assert isinstance(opened, AudioPart) and opened.media.num_tokens > 0


def test_another_kind_than_wanted_is_named() -> None:
    with pytest.raises(MediaError, match=r"speech\.flac` is a recording, not a picture") as caught:
        OPENER.open(SPEECH, "image")
    assert caught.value.hint == "attach it with --audio"
    with pytest.raises(MediaError, match="is a picture, not a film"):
        OPENER.open(CAT, "video")


def test_unknown_bytes_and_missing_files_are_media_errors(tmp_path: Path) -> None:
    text = tmp_path / "notes.png"
    text.write_text("just words")
    with pytest.raises(MediaError, match=r"notes\.png` is no known kind"):
        OPENER.open(text)
    with pytest.raises(MediaError):
        OPENER.open(text, "image")
    with pytest.raises(MediaError, match="does not exist"):
        OPENER.open(str(tmp_path / "absent.png"))
    with pytest.raises(MediaError):
        OPENER.open(b"")


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(CAT.read_bytes())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert OPENER.open("~/cat.jpg").origin == tmp_path / "cat.jpg"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_read_once_and_kept(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    threading.Thread(target=pipe.write_bytes, args=(CAT.read_bytes(),), daemon=True).start()
    assert OPENER.open(pipe).origin == CAT.read_bytes()


def test_the_net_and_files_can_be_out_of_bounds() -> None:
    for url in ("http://127.0.0.1:9/a.png", "HTTPS://example.com/a.png"):
        with pytest.raises(UsageError, match="nothing is fetched") as caught:
            OPENER.open(url)
        assert "--allow-net" in caught.value.hint
    for reference in (str(CAT), CAT, CAT.resolve().as_uri()):
        with pytest.raises(UsageError, match="paths are not allowed"):
            MediaOpener(allow_files=False).open(reference)


class Pictures(BaseHTTPRequestHandler):
    """Serves the cat, and nothing else."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/cat" else 404)
        self.end_headers()
        if self.path == "/cat":
            self.wfile.write(CAT.read_bytes())

    def log_message(self, *args: object) -> None:
        """Stay silent."""


def test_an_allowed_address_is_fetched() -> None:
    server = HTTPServer(("127.0.0.1", 0), Pictures)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        opener = MediaOpener(allow_net=True)
        address = f"http://127.0.0.1:{server.server_port}"
        assert opener.open(f"{address}/cat").media.source == f"{address}/cat"
        with pytest.raises(MediaError, match="cannot be fetched: the server answered 404"):
            opener.open(f"{address}/dog")
    finally:
        server.shutdown()
        server.server_close()


def test_choices_reach_the_media() -> None:
    choices = MediaChoices(max_pixels=64 * 64, video_audio=False)
    opener = MediaOpener(MediaOptions.of_checkpoint(ProcessorConfig.from_dict({}), choices=choices))
    assert opener.open(CAT).media.num_tokens <= 4 < OPENER.open(CAT).media.num_tokens
    film = opener.open(CLIP)
    assert isinstance(film, VideoPart) and film.media.audio is None


def test_malformed_data_is_a_usage_error() -> None:
    assert decode_data_uri("data:,a%20b") == b"a b"
    assert decode_base64(" YQ\n== ") == b"a"
    for wrong in ("data:image/png;base64", "data:;base64,a"):
        with pytest.raises(UsageError):
            decode_data_uri(wrong)


def test_an_animated_gif_is_a_film_where_a_film_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    write_film(path)
    assert isinstance(OPENER.open(path), ImagePart) and isinstance(OPENER.open(path, "video"), VideoPart)


def write_film(path: Path) -> None:
    """Write a film of four frames in the format that the name says."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("gif", rate=10, width=64, height=64, pix_fmt="rgb8")
        for shade in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 60 * shade, np.uint8), "rgb24")
            container.mux(stream.encode(frame.reformat(format="rgb8")))
        container.mux(stream.encode())


@pytest.mark.parametrize("kind", [None, "image", "video", "audio"])
def test_an_empty_file_is_called_empty(tmp_path: Path, kind: Kind | None) -> None:
    (tmp_path / "x.png").touch()
    with pytest.raises(MediaError, match=r"^`.*x\.png` is empty \(0 bytes\)$"):
        OPENER.open(str(tmp_path / "x.png"), kind)
