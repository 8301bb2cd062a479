"""Stores by URL, and what becomes of a service that fails."""

import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from app.storage import fsspec_store, urls
from app.storage.store import StoreUnavailable
from app.storage.urls import StoreError, open_store, require_conditional_put
from tests.support.s3 import S3Server


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("bucket/plant", "must look like"),
        ("s3://", "must look like"),
        ("simplecache::s3://bucket", "must look like"),
        ("s3://key:secret@bucket", "no password"),
        ("file://share", "absolute folder"),
        ("s4://bucket", "no file system of fsspec"),
        ("oci://bucket", "pip install 'ocifs'"),
    ],
)
def test_unusable_url_is_refused(url: str, reason: str) -> None:
    with pytest.raises(StoreError, match=reason):
        open_store(url)


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(StoreError, match=r"pip install 'flowgauge\[s3\]'"):
        open_store("s3://bucket/plant")


def test_silent_server_is_unavailable(
    s3_url: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(s3_url)
    store.write("a", b"a")
    with monkeypatch.context() as patched:
        patched.setitem(urls._TIMEOUTS, "read_timeout", 0.2)
        hasty = open_store(s3_url)
        hasty.read("a")  # connects
    monkeypatch.setattr(fsspec_store, "_WRITE_SECONDS", 0.2)
    with s3_server.standing_still():
        uses: list[Callable[[], object]] = [
            lambda: hasty.read("a"),
            lambda: [*hasty.list("")],
            lambda: hasty.create("b", b"b"),
        ]
        for use in uses:
            with pytest.raises(StoreUnavailable, match="does not answer"):
                use()
        monkeypatch.setattr(fsspec_store, "_PAUSE_SECONDS", 60)
        for reason in ("does not answer", "a moment ago"):  # those that queue do not wait in turn
            with pytest.raises(StoreUnavailable, match=reason):
                hasty.read("a")
    assert store.read("a") == b"a"


def test_stopped_server_is_unavailable_until_its_start(s3_url: str, s3_server: S3Server) -> None:
    store = open_store(s3_url)
    store.write("a", b"a")
    s3_server.kill()
    try:
        with pytest.raises(StoreUnavailable):
            store.read("a")
    finally:
        s3_server.start()
    for use in (lambda: store.read("a"), lambda: require_conditional_put(store)):
        with pytest.raises(StoreUnavailable, match="bucket does not exist"):  # it has forgotten all
            use()


class _Refusing(BaseHTTPRequestHandler):
    """An S3 server that does not name the condition that did not hold, as the protocol allows."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b"<Error><Code>PreconditionFailed</Code><Message>It exists</Message></Error>"
        self.send_response(412)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_condition_need_not_be_named(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(FileExistsError):
            open_store(s3_url).create("a", b"a")
        server.shutdown()
