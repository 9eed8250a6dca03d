"""Media from the network: only if the caller allows it, only http and https, and never without bound."""

import re
import time
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse

from mimo_cli.errors import MediaError, UsageError

MAX_DOWNLOAD_BYTES = 2_000_000_000
"""Largest download, unless the caller sets another limit."""

TIMEOUT_S = 30.0
"""Longest silence of the other side."""

TOTAL_TIMEOUT_S = 600.0
"""Longest download as a whole."""

_BLOCK_BYTES = 1 << 20
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_SCHEMES = ("http", "https")


def is_url(text: str) -> bool:
    """Tell whether some text is an address (of whatever scheme) and no path; a drive letter is a path."""
    return _URL.match(text) is not None


def fetch(url: str, *, allow_net: bool, limit_bytes: int = MAX_DOWNLOAD_BYTES, timeout_s: float = TIMEOUT_S) -> bytes:
    """Download an address into memory.

    Raises UsageError unless allow_net, MediaError for other schemes than http(s), for failures, and for more bytes
    than the limit (before they are downloaded, where the server says how many there are).
    """
    scheme = url.split(":", 1)[0].lower()
    if scheme not in _SCHEMES:
        raise MediaError(f"`{url}` is an address of the scheme `{scheme}`; only http and https are fetched")
    if not allow_net:
        raise UsageError(
            f"`{url}` is an address, and nothing is fetched from the network unless you say so",
            hint="add --allow-net, or download the file and pass its path",
        )
    # Only these handlers: the default opener also follows ftp: and file:.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "mimo-cli", "Accept": "*/*"})
        with opener.open(request, timeout=timeout_s) as response:
            stated = response.headers.get("Content-Length", "")
            if stated.isdecimal() and int(stated) > limit_bytes:
                raise _too_large(url, int(stated), limit_bytes)
            data = _read(url, response, limit_bytes)
            if stated.isdecimal() and len(data) < int(stated):
                raise MediaError(f"`{url}` was cut short: {stated} bytes announced, {len(data)} received")
            return data
    except urllib.error.HTTPError as err:
        raise MediaError(f"`{url}` cannot be fetched: the server answered {err.code} {err.reason}") from err
    except (OSError, HTTPException, ValueError) as err:
        reason = getattr(err, "reason", None) or err
        raise MediaError(f"`{url}` cannot be fetched: {reason}") from err


def _read(url: str, response: HTTPResponse, limit_bytes: int) -> bytes:
    """Read a response block by block within the limits of size and time."""
    deadline = time.monotonic() + TOTAL_TIMEOUT_S
    data = bytearray()
    while block := response.read(_BLOCK_BYTES):
        data += block
        if len(data) > limit_bytes:
            raise _too_large(url, len(data), limit_bytes)
        if time.monotonic() > deadline:
            raise MediaError(f"`{url}` was not complete after {TOTAL_TIMEOUT_S:.0f} s ({len(data)} bytes)")
    if not data:
        raise MediaError(f"`{url}` is empty (0 bytes)")
    return bytes(data)


def _too_large(url: str, size_bytes: int, limit_bytes: int) -> MediaError:
    return MediaError(f"`{url}` has at least {size_bytes} bytes; at most {limit_bytes} are fetched")
