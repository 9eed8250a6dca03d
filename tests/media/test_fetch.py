"""Downloads: only when allowed, only http(s), bounded; against a server on this machine."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mimo_cli.errors import MediaError, UsageError
from mimo_cli.media import fetch as fetch_module
from mimo_cli.media.fetch import fetch, is_url

CONTENT = bytes(range(256)) * 40


class Handler(BaseHTTPRequestHandler):
    """Answers by path; keeps silent on stderr."""

    def do_GET(self) -> None:
        answers = {
            "/file": (200, {"Content-Length": str(len(CONTENT))}, CONTENT),
            "/unsized": (200, {}, CONTENT),
            "/short": (200, {"Content-Length": "99999"}, CONTENT),
            "/huge": (200, {"Content-Length": "9" * 15}, b""),
            "/empty": (200, {"Content-Length": "0"}, b""),
            "/moved": (302, {"Location": "/file"}, b""),
            "/to-file": (302, {"Location": "file:///etc/hostname"}, b""),
            "/to-ftp": (302, {"Location": "ftp://127.0.0.1:1/x"}, b""),
            "/loop": (302, {"Location": "/loop"}, b""),
        }
        status, headers, body = answers.get(self.path, (404, {}, b"no such file"))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://a.b/c.png", True),
        ("HTTPS://a", True),
        ("ftp://x", True),
        ("a.png", False),
        (r"C:\a.png", False),
        ("-", False),
    ],
)
def test_addresses_are_told_from_paths(text: str, expected: bool) -> None:
    assert is_url(text) is expected


def test_nothing_is_fetched_without_permission(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.OpenerDirector.open", lambda *_, **__: pytest.fail("the network was used"))
    with pytest.raises(UsageError, match="nothing is fetched from the network") as caught:
        fetch(f"{address}/file", allow_net=False)
    assert "--allow-net" in (caught.value.hint or "")


@pytest.mark.parametrize("path", ["/file", "/unsized", "/moved"])
def test_an_allowed_address_gives_its_bytes(address: str, path: str) -> None:
    assert fetch(address + path, allow_net=True) == CONTENT


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "gopher://x", "data://text/plain,x"])
def test_other_schemes_are_refused_even_if_allowed(url: str) -> None:
    with pytest.raises(MediaError, match="only http and https"):
        fetch(url, allow_net=True)


@pytest.mark.parametrize("path", ["/to-file", "/to-ftp"])
def test_a_redirection_cannot_leave_http(address: str, path: str) -> None:
    with pytest.raises(MediaError, match="cannot be fetched"):
        fetch(address + path, allow_net=True)


@pytest.mark.parametrize("path", ["/file", "/unsized", "/huge"])
def test_more_bytes_than_the_limit_are_refused(address: str, path: str) -> None:
    with pytest.raises(MediaError, match="at most 1000 are fetched"):
        fetch(address + path, allow_net=True, limit_bytes=1000)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/none", "answered 404 Not Found"),
        ("/short", "cut short: 99999 bytes announced"),
        ("/empty", "is empty"),
        ("/loop", "cannot be fetched"),
    ],
)
def test_failures_name_the_address_and_the_reason(address: str, path: str, message: str) -> None:
    with pytest.raises(MediaError, match=message) as caught:
        fetch(address + path, allow_net=True)
    assert address + path in str(caught.value)


def test_a_download_that_takes_too_long_is_given_up(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "TOTAL_TIMEOUT_S", -1.0)
    with pytest.raises(MediaError, match="not complete after"):
        fetch(f"{address}/file", allow_net=True)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://", "http://[bad", "http://127.0.0.1:port/"])
def test_unreachable_or_broken_addresses_are_clear_errors(url: str) -> None:
    with pytest.raises(MediaError, match="cannot be fetched"):
        fetch(url, allow_net=True, timeout_s=2)
