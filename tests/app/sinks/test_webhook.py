import asyncio
import base64
import contextlib
import hashlib
import hmac
import ipaddress
import json
import socket
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
from tests.receiver import Receiver

KEY = b"k" * 32
SECRET = SecretStr(f"whsec_{base64.b64encode(KEY).decode()}")
DATA = {"inspection_id": "0193a6b2", "created_at": "2026-11-25T01:15:00.123Z", "decision": "REJECT"}
EVENT = Event("inspection", "bottle", "line-3", "REJECT", json.dumps(DATA), 1)
HERE = (ipaddress.ip_network("127.0.0.0/8"),)


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

    use(WebhookSink(webhook(receiver.url, **values), HERE), work)
    return failure[0] if failure else None


def test_an_event_is_sent_signed() -> None:
    async def work(sink: WebhookSink) -> None:
        assert sink.is_ready
        await sink.ready()
        await sink.deliver(EVENT, redelivered=False)
        await sink.deliver(EVENT, redelivered=True)

    with Receiver() as receiver:
        use(WebhookSink(webhook(receiver.url, decisions=["REJECT"]), HERE), work)
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
    sink = WebhookSink(webhook("http://a/", decisions=["REJECT"], categories=["bottle"]), ())
    assert sink.name == "webhook-mes"
    assert sink.wanted.admits(EVENT)
    for other in (
        Event("review", "bottle", None, "REJECT", "{}", 1),
        Event("inspection", "grid", None, "REJECT", "{}", 1),
        Event("inspection", "bottle", None, "PASS", "{}", 1),
    ):
        assert not sink.wanted.admits(other)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_answers_that_accept(status: int) -> None:
    with Receiver(lambda *_: (status, {})) as receiver:
        assert deliver(receiver) is None


@pytest.mark.parametrize("status", [408, 425, 429, 502, 503, 504])
def test_answers_of_one_that_cannot_now(status: int) -> None:
    with Receiver(lambda *_: (status, {"Retry-After": "7"})) as receiver:
        error = deliver(receiver)
    assert error is not None
    assert (error.final, error.counts, error.reached, error.wait) == (False, False, True, 7)


@pytest.mark.parametrize("status", [500, 501, 599])
def test_answers_that_count(status: int) -> None:
    with Receiver(lambda *_: (status, {})) as receiver:
        error = deliver(receiver)
    assert error is not None
    assert (error.final, error.counts, error.wait) == (False, True, None)


@pytest.mark.parametrize("status", [400, 402, 409, 410, 418, 422])
def test_answers_that_are_final(status: int) -> None:
    with Receiver(lambda *_: (status, {})) as receiver:
        error = deliver(receiver)
    assert error is not None
    assert error.final


@pytest.mark.parametrize("status", [401, 403, 404, 405, 407])
def test_answers_that_tell_of_the_address_or_the_secret_are_no_fault_of_the_event(status: int) -> None:
    with Receiver(lambda *_: (status, {})) as receiver:
        error = deliver(receiver)
    assert error is not None
    assert (error.final, error.counts, error.reached) == (False, True, True)
    assert str(status) in str(error)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    with Receiver() as other, Receiver(lambda *_: (status, {"Location": other.url})) as receiver:
        error = deliver(receiver)
    assert error is not None
    assert (error.final, error.counts) == (False, True)
    assert "redirect" in str(error)
    assert (len(receiver.messages), len(other.messages)) == (1, 0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("99999999", 3600.0),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
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


def test_one_that_is_not_there() -> None:
    error = deliver(Receiver())
    assert error is not None
    assert (error.final, error.counts, error.reached) == (False, False, False)
    assert "cannot be reached" in str(error)


def test_one_of_many_addresses_that_drop_everything_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("0.0.0.0", 0), backlog=0))  # noqa: S104
        port = full.getsockname()[1]
        for last in range(1, 6):
            for _ in range(3):  # until nobody is let in any more
                other = stack.enter_context(socket.socket())
                other.setblocking(False)
                other.connect_ex((f"127.0.0.{last}", port))
        addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{n}", port)) for n in range(1, 6)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
        failures: list[Undelivered] = []

        async def work(sink: WebhookSink) -> None:
            with pytest.raises(Undelivered) as caught:
                await sink.deliver(EVENT, redelivered=False)
            failures.append(caught.value)

        use(WebhookSink(webhook(f"http://mes.plant:{port}/", timeout_seconds=2), HERE), work)
    assert "cannot be reached" in str(failures[0])
    assert (failures[0].final, failures[0].counts, failures[0].reached) == (False, False, False)


def test_one_that_ends_the_connection() -> None:
    with Receiver(lambda *_: None) as receiver:
        error = deliver(receiver)
    assert error is not None
    assert (error.final, error.counts, error.reached) == (False, False, True)


def test_one_that_does_not_answer() -> None:
    with Receiver(seconds=60) as receiver:
        error = deliver(receiver, timeout_seconds=2)  # connecting must take less
    assert error is not None
    assert (error.final, error.counts, error.reached) == (False, True, True)


def test_one_that_answers_byte_by_byte() -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            for byte in b"HTTP/1.1 204 No Content\r\n\r\n":
                writer.write(bytes([byte]))
                await asyncio.sleep(0.2)

    async def work() -> None:
        async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            sink = WebhookSink(webhook(f"http://127.0.0.1:{port}/", timeout_seconds=1), HERE)
            try:
                with pytest.raises(Undelivered) as caught:
                    await sink.deliver(EVENT, redelivered=False)
            finally:
                await sink.close()
        assert (caught.value.final, caught.value.counts, caught.value.reached) == (False, True, True)

    asyncio.run(work())


def test_private_addresses_are_not_connected_to_unless_listed() -> None:
    def work_with(sink: WebhookSink) -> Undelivered:
        async def work(sink: WebhookSink) -> None:
            with pytest.raises(Undelivered) as caught:
                await sink.deliver(EVENT, redelivered=False)
            failures.append(caught.value)

        failures: list[Undelivered] = []
        use(sink, work)
        return failures[0]

    with Receiver() as receiver:
        error = work_with(WebhookSink(webhook(receiver.url), ()))
        assert "networks" in str(error)
        assert not error.reached
        assert receiver.messages == []


def test_after_a_restart_of_the_receiver_old_connections_are_no_obstacle() -> None:
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
        use(WebhookSink(webhook(receiver.url), HERE), work)
    assert len(receiver.messages) >= 2


@pytest.mark.parametrize(
    ("status", "body"), [(204, b""), (200, b"ok"), (200, b"x" * 60_000), (503, b"later")]
)
def test_a_connection_is_used_again(status: int, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(sink: WebhookSink) -> None:
        for _ in range(5):
            with contextlib.suppress(Undelivered):
                await sink.deliver(EVENT, redelivered=False)

    # So that each comes in time, however busy the machine.
    monkeypatch.setattr("app.sinks.webhook._BODY_SECONDS", 60)
    with Receiver(lambda *_: (status, {}), body=body) as receiver:
        use(WebhookSink(webhook(receiver.url), HERE), work)
        assert (len(receiver.messages), receiver.connections) == (5, 1)


def test_of_a_long_body_not_all_is_read() -> None:
    async def work(sink: WebhookSink) -> None:
        for _ in range(2):
            await sink.deliver(EVENT, redelivered=False)

    with Receiver(lambda *_: (200, {}), body=bytes(20_000_000)) as receiver:
        use(WebhookSink(webhook(receiver.url), HERE), work)
        assert (len(receiver.messages), receiver.connections) == (2, 2)


@pytest.mark.parametrize("seconds", [2, 60])
@pytest.mark.parametrize("end", ["never", "cut off"])
def test_a_body_that_does_not_come_takes_nothing_back(
    end: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status has said that the receiver has the event."""

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
    if seconds < 60:
        monkeypatch.setattr("app.sinks.webhook._BODY_SECONDS", 60)  # all of it takes too long before that

    async def scenario() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        sink = WebhookSink(webhook(f"http://127.0.0.1:{port}/hook", timeout_seconds=seconds), HERE)
        try:
            await sink.deliver(EVENT, redelivered=False)
        finally:
            await sink.close()
            server.close()
        await over.wait()

    asyncio.run(scenario())
