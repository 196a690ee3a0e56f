"""Places where files are published: what they say of a file, and the file as a stream that may begin in its middle.

A place is the address of a folder: http(s), or any URI or path that fsspec can open. What goes wrong on the way is either a
ConnectionError (to be tried again) or an ObjectError: not_there, forbidden, refused.
"""

import hashlib
import io
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import BinaryIO
from urllib.parse import quote, urlsplit

import fsspec
import huggingface_hub
import requests

from pipeline.fetch.cache import stamp_of
from pipeline.fetch.persist import Later, foreign_errors
from pipeline.stage import ObjectError

TIMEOUT = (15, 60)  # seconds to connect, and without a byte


@dataclass(frozen=True)
class Promise:
    """What a place says of a file: size in bytes and checksums (hexadecimal), None where it is silent; `state` changes with it."""

    size: int | None
    sha256: str | None = None
    md5: str | None = None
    state: str = ""

    def kept_by(self, size: int, sha256: str, md5: str) -> str | None:
        """What the file was checked by (sha256, md5, size or nothing), or None when it is another."""
        if self.size not in (None, size) or self.sha256 not in (None, sha256) or self.md5 not in (None, md5):
            return None
        return next((kind for kind in ("sha256", "md5", "size") if getattr(self, kind) is not None), "nothing")


def promise_of(place: str, path: str) -> Promise:
    """What the place says of a file, without fetching it."""
    if not _over_http(place):
        with _asked(place, path):
            filesystem, remote = _remote(place, path)
            return _promise_of_info(filesystem.info(remote))
    with _asked(place, path):
        # the hub answers for the storage behind it, with the file's own checksum: what the storage says is not asked for
        response = _session().head(_url(place, path), timeout=TIMEOUT, headers=_headers(place))
        if response.is_redirect and "X-Linked-Size" not in response.headers:
            response = _session().head(_url(place, path), timeout=TIMEOUT, headers=_headers(place), allow_redirects=True)
        _good(response)
        return _promise_of_response(response)


def opened_at(place: str, path: str, start: int) -> tuple[Promise, BinaryIO, int]:
    """What the place says of a file, a stream of it, and the byte that the stream begins with: `start`, or 0 where it cannot."""
    if not _over_http(place):
        with _asked(place, path):
            filesystem, remote = _remote(place, path)
            promise, stream = _promise_of_info(filesystem.info(remote)), filesystem.open(remote, "rb")
            start = start if start <= (promise.size or 0) else 0
            stream.seek(start)
            return promise, stream, start
    with _asked(place, path):
        wanted = {"Range": f"bytes={start}-"} if start else {}
        response = _session().get(_url(place, path), stream=True, timeout=TIMEOUT, headers=_headers(place) | wanted)
        if response.status_code == 416:  # nothing lies beyond: the part is whole, or of another file
            response.close()
            promise = promise_of(place, path)
            return (promise, io.BytesIO(), start) if promise.size == start else opened_at(place, path, 0)
        _good(response)
        return _promise_of_response(response), response.raw, start if response.status_code == 206 else 0


def piece_of(stream: BinaryIO, size: int) -> bytes:
    """The next bytes of a stream, at most `size`; none at its end."""
    with foreign_errors():
        return stream.read(size)


def _promise_of_response(response: requests.Response) -> Promise:
    """From the headers of the place that was asked and of the one that answered.

    X-Linked-Size and X-Linked-Etag are the Hugging Face hub's: size and SHA-256 of a file in large storage. S3's ETag is the MD5 of
    an object that came in one part and is not encrypted with a key of its owner
    (https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html).
    """
    asked, answered = (response.history or [response])[0].headers, response.headers
    part = re.fullmatch(r"bytes .*/(\d+)", answered.get("Content-Range", ""))
    size = asked.get("X-Linked-Size") or (part[1] if part else answered.get("Content-Length"))
    linked, etag = asked.get("X-Linked-Etag", "").strip('"'), answered.get("ETag", "")
    from_s3 = asked.get("Server") == "AmazonS3" and asked.get("x-amz-server-side-encryption", "AES256") == "AES256"
    return Promise(
        size=int(size) if size else None,
        sha256=linked if re.fullmatch("[0-9a-f]{64}", linked) else None,
        md5=etag.strip('"') if from_s3 and re.fullmatch('"[0-9a-f]{32}"', etag) else None,
        state=_state(size, linked or etag or answered.get("Last-Modified")),
    )


def _promise_of_info(about: dict) -> Promise:
    """From what fsspec says of a file. The hub's file system knows the SHA-256 of what is in large storage."""
    sha256 = getattr(about.get("lfs"), "sha256", None)
    return Promise(size=about["size"], sha256=sha256, state=_state(sha256, stamp_of(about)))


def _state(*marks: str | None) -> str:
    return hashlib.sha256(repr(marks).encode()).hexdigest()[:12]


def _good(response: requests.Response) -> None:
    status = response.status_code
    if status < 400:
        return
    response.close()
    if status in (404, 410):
        raise ObjectError("not_there", f"{response.url} is not there (HTTP {status})")
    if status in (401, 403):
        raise ObjectError("forbidden", f"{response.url} may not be read, or is not there (HTTP {status})")
    if status not in (408, 425, 429) and status < 500:
        raise ObjectError("refused", f"{response.url} was refused (HTTP {status})")
    raise Later(f"HTTP {status}", _seconds(response.headers.get("Retry-After", "")))


def _seconds(retry_after: str) -> float:
    """How long a server asks to wait: seconds or a date (RFC 9110, section 10.2.3); 0 where it does not."""
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        return parsedate_to_datetime(retry_after).timestamp() - time.time()
    except ValueError:
        return 0.0


@contextmanager
def _asked(place: str, path: str) -> Iterator[None]:
    """Errors as this module's callers expect them."""
    try:
        with foreign_errors():
            yield
    except FileNotFoundError as error:
        raise ObjectError("not_there", f"{place}/{path} is not there") from error
    except PermissionError as error:
        raise ObjectError("forbidden", f"{place}/{path} may not be read ({error})") from error


def _over_http(place: str) -> bool:
    return urlsplit(place).scheme in ("http", "https")


def _remote(place: str, path: str) -> tuple[fsspec.AbstractFileSystem, str]:
    filesystem, root = fsspec.url_to_fs(place)
    return filesystem, f"{root.rstrip('/')}/{path}"


def _url(place: str, path: str) -> str:
    return f"{place.rstrip('/')}/{quote(path)}"


_of_thread = threading.local()


def _session() -> requests.Session:
    """Connections that are kept open, one set per thread."""
    if not hasattr(_of_thread, "session"):
        _of_thread.session = requests.Session()
    return _of_thread.session


def _headers(place: str) -> dict[str, str]:
    """The bytes as they are; to the hub also this machine's token where there is one, since it lets the known ask more often."""
    token = huggingface_hub.get_token() if urlsplit(place).hostname == "huggingface.co" else None
    return {"Accept-Encoding": "identity", "User-Agent": "tricorpus"} | ({"Authorization": f"Bearer {token}"} if token else {})
