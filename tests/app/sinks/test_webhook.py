import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from pydantic import SecretStr

from app.feed.log import Event
from app.sinks.delivery import Undelivered
from app.sinks.webhook import WebhookSink
from app.sinks.webhook_file import Webhook
from tests.support.receiver import Receiver

KEY = b"k" * 32
SECRET = SecretStr(f"whsec_{base64.b64encode(KEY).decode()}")
DATA = {"inspection_id": "0193a6b2", "created_at": "2026-11-25T01:15:00.123Z", "decision": "REJECT"}
EVENT = Event("inspection", "bottle", "line-3", "REJECT", json.dumps(DATA), 1)


def webhook(url: str, **values: object) -> Webhook:
    # By default as long as may be: where no test waits for it, it is never used up.
    return Webhook.model_validate(
        {"name": "mes", "url": url, "secret": SECRET, "timeout_seconds": 60, **values}
    )


def use(sink: WebhookSink, work: Callable[[WebhookSink], Awaitable[None]]) -> None:
    async def do() -> None:
        await sink.open()
        try:
            await work(sink)
        finally:
            await sink.close()

    asyncio.run(do())


def deliver(receiver: Receiver, **values: object) -> Undelivered | None:
    """Deliver the event once; why it was not delivered."""
    failure: list[Undelivered] = []

    async def work(sink: WebhookSink) -> None:
        try:
            await sink.deliver(EVENT, redelivered=False)
        except Undelivered as error:
            failure.append(error)

    use(WebhookSink(webhook(receiver.url, **values)), work)
    return failure[0] if failure else None


def test_event_is_sent_signed() -> None:
    async def work(sink: WebhookSink) -> None:
        assert sink.is_ready
        await sink.ready()
        await sink.deliver(EVENT, redelivered=False)
        await sink.deliver(EVENT, redelivered=True)

    with Receiver() as receiver:
        use(WebhookSink(webhook(receiver.url, decisions=["REJECT"])), work)
    for message, redelivered in zip(receiver.messages, (False, True), strict=True):
        assert message.path == "/hook"
        assert message.content == {
            "type": "inspection",
            "timestamp": DATA["created_at"],
            "redelivered": redelivered,
            "data": DATA,
        }
        assert message.headers["content-type"] == "application/json"
        assert message.headers["webhook-id"] == "0193a6b2"
        sent = int(message.headers["webhook-timestamp"])
        assert abs(time.time() - sent) < 60
        signed = b"0193a6b2." + str(sent).encode() + b"." + message.body
        expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
        assert message.headers["webhook-signature"] == f"v1,{expected}"


def test_what_is_wanted() -> None:
    sink = WebhookSink(webhook("http://a/", decisions=["REJECT"], categories=["bottle"]))
    assert sink.name == "webhook-mes"
    assert sink.wanted.admits(EVENT)
    for other in (
        Event("review", "bottle", None, "REJECT", "{}", 1),
        Event("inspection", "grid", None, "REJECT", "{}", 1),
        Event("inspection", "bottle", None, "PASS", "{}", 1),
    ):
        assert not sink.wanted.admits(other)


@pytest.mark.parametrize("status", [200, 204, 299])
def test_success_is_delivery(status: int) -> None:
    with Receiver(lambda *_: (status, {})) as receiver:
        assert deliver(receiver) is None


@pytest.mark.parametrize(
    ("statuses", "counts", "final"),
    [
        ([408, 425, 429, 502, 503, 504], False, False),  # it cannot now
        ([500, 501, 599], True, False),
        ([401, 403, 404, 405, 407], True, False),  # the address or the secret may be wrong
        ([400, 402, 409, 410, 422], False, True),
    ],
)
def test_refusals(statuses: list[int], counts: bool, final: bool) -> None:
    for status in statuses:
        with Receiver(lambda *_, status=status: (status, {})) as receiver:
            error = deliver(receiver)
        assert error is not None
        assert (error.counts, error.final, error.reached, error.wait) == (counts, final, True, None)
        assert str(status) in str(error)


@pytest.mark.parametrize("status", [301, 308])
def test_redirect_is_not_followed(status: int) -> None:
    with Receiver() as other, Receiver(lambda *_: (status, {"Location": other.url})) as receiver:
        error = deliver(receiver)
    assert error is not None
    assert (error.final, error.counts) == (False, True)
    assert "redirect" in str(error)
    assert (len(receiver.messages), len(other.messages)) == (1, 0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0.5", 0.5),
        ("99999999", 3600.0),
        ("-1", None),
        ("soon", None),
        ("nan", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999999999", None),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    with Receiver(lambda *_: (503, {"Retry-After": text})) as receiver:
        error = deliver(receiver)
    assert error is not None
    assert error.wait == seconds


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=5))], ids=str)
def test_retry_after_as_a_date(zone: timezone) -> None:
    later = format_datetime(datetime.now(zone) + timedelta(seconds=100), usegmt=zone is UTC)
    with Receiver(lambda *_: (503, {"Retry-After": later})) as receiver:
        error = deliver(receiver)
    assert error is not None
    assert error.wait is not None
    assert 50 < error.wait <= 100


def test_receiver_that_is_not_there() -> None:
    error = deliver(Receiver())
    assert error is not None
    assert (error.final, error.counts, error.reached) == (False, False, False)
    assert "cannot be reached" in str(error)


def test_receiver_that_ends_the_connection() -> None:
    with Receiver(lambda *_: None) as receiver:
        error = deliver(receiver)
    assert error is not None
    assert (error.final, error.counts, error.reached) == (False, False, True)


def test_receiver_that_does_not_answer() -> None:
    with Receiver(seconds=60) as receiver:
        error = deliver(receiver, timeout_seconds=2)  # connecting must take less
    assert error is not None
    assert (error.final, error.counts, error.reached) == (False, True, True)


def test_receiver_that_answers_byte_by_byte() -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            for byte in b"HTTP/1.1 204 No Content\r\n\r\n":
                writer.write(bytes([byte]))
                await asyncio.sleep(0.2)

    async def work() -> None:
        async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            sink = WebhookSink(webhook(f"http://127.0.0.1:{port}/", timeout_seconds=1))
            try:
                with pytest.raises(Undelivered) as caught:
                    await sink.deliver(EVENT, redelivered=False)
            finally:
                await sink.close()
        assert (caught.value.final, caught.value.counts, caught.value.reached) == (False, True, True)

    asyncio.run(work())


def test_receiver_that_was_restarted() -> None:
    failures: list[Undelivered] = []
    receiver = Receiver()

    async def work(sink: WebhookSink) -> None:
        await sink.deliver(EVENT, redelivered=False)
        await asyncio.to_thread(receiver.stop)
        await asyncio.to_thread(receiver.start)
        for _ in range(3):
            try:
                await sink.deliver(EVENT, redelivered=True)
            except Undelivered as error:
                failures.append(error)
            else:
                break
        assert not any(error.final for error in failures)

    with receiver:
        use(WebhookSink(webhook(receiver.url)), work)
    assert len(receiver.messages) >= 2


@pytest.mark.parametrize(("body", "connections"), [(b"ok", 1), (bytes(20_000_000), 3)])
def test_connection_is_used_again_after_a_small_body(body: bytes, connections: int) -> None:
    async def work(sink: WebhookSink) -> None:
        for _ in range(3):
            await sink.deliver(EVENT, redelivered=False)

    with Receiver(lambda *_: (200, {}), body=body) as receiver:
        use(WebhookSink(webhook(receiver.url)), work)
        assert (len(receiver.messages), receiver.connections) == (3, connections)


@pytest.mark.parametrize("end", ["never", "cut off"])
def test_status_counts_where_the_body_does_not_come(end: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
        await writer.drain()
        if end == "never":
            await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        over.set()

    over = asyncio.Event()

    async def scenario() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            sink = WebhookSink(webhook(f"http://127.0.0.1:{port}/hook", timeout_seconds=2))
            await sink.deliver(EVENT, redelivered=False)
            await sink.close()
            await over.wait()

    asyncio.run(scenario())
