import asyncio
import base64
import contextlib
import json
import time

import pytest

from app.events.log import EventSelector, NumberedEvent
from app.events.sinks.config import SinkError
from app.events.sinks.sink import DeliveryError
from app.events.sinks.webhook import WebhookSink, sign
from app.events.sinks.webhook_file import Webhook, read_secret
from tests.support.receiver import Receiver

KEY = b"k" * 32
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
DATA = {"inspection_id": "0193a6b2", "created_at": "2026-11-25T01:15:00.123Z", "decision": "REJECT"}
EVENT = NumberedEvent("inspection", "bottle", "line-3", "REJECT", json.dumps(DATA), 1)


def webhook(url: str, **values: object) -> Webhook:
    # By default as long as may be: where no test waits for it, it is never used up.
    return Webhook.model_validate(
        {"name": "mes", "url": url, "secret": SECRET, "timeout_seconds": 60, **values}
    )


def deliver(sink: WebhookSink, times: int = 1) -> DeliveryError | None:
    """Deliver the event several times and return the errors."""

    async def do() -> DeliveryError | None:
        try:
            for number in range(times):
                await sink.deliver(EVENT, redelivered=number > 0)
        except DeliveryError as error:
            return error
        finally:
            await sink.close()
        return None

    return asyncio.run(do())


def refusal(receiver: Receiver, **values: object) -> DeliveryError:
    error = deliver(WebhookSink(webhook(receiver.url, **values)))
    assert error is not None
    return error


def test_event_is_sent_signed() -> None:
    with Receiver() as receiver:
        sink = WebhookSink(webhook(receiver.url, decisions=["REJECT"]))
        assert sink.is_ready
        assert deliver(sink, times=2) is None
    for message, redelivered in zip(receiver.messages, (False, True), strict=True):
        assert message.path == "/hook"
        assert message.content == {
            "type": "inspection",
            "timestamp": DATA["created_at"],
            "redelivered": redelivered,
            "data": DATA,
        }
        assert message.headers["content-type"] == "application/json"
        sent = int(message.headers["webhook-timestamp"])
        assert abs(time.time() - sent) < 60
        assert sign(KEY, "0193a6b2", sent, message.body).items() <= message.headers.items()


def test_signature_of_the_specification() -> None:
    """Values from the tests of the Standard Webhooks libraries."""
    key = read_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}') == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_events_are_selected_by_the_settings() -> None:
    sink = WebhookSink(webhook("http://a/", decisions=["REJECT"], categories=["bottle"]))
    assert sink.name == "webhook-mes"
    assert sink.events == EventSelector(
        kind=frozenset({"inspection"}), decision=frozenset({"REJECT"}), category=frozenset({"bottle"})
    )


@pytest.mark.parametrize(
    ("statuses", "counts", "final"),
    [
        ([408, 425, 429, 502, 503, 504], False, False),  # it cannot now
        ([500, 501, 599], True, False),
        ([401, 403, 404, 405, 407], True, False),  # the address or the secret may be wrong
        ([400, 402, 409, 410, 422], True, True),
    ],
)
def test_refused_event_is_classified(statuses: list[int], counts: bool, final: bool) -> None:
    for status in statuses:
        with Receiver(lambda *_, status=status: (status, {})) as receiver:
            error = refusal(receiver)
        assert (error.counts, error.final, error.reached, error.wait) == (counts, final, True, None)
        assert str(status) in str(error)


@pytest.mark.parametrize("status", [301, 308])
def test_redirect_is_not_followed(status: int) -> None:
    with Receiver() as other, Receiver(lambda *_: (status, {"Location": other.url})) as receiver:
        error = refusal(receiver)
    assert (error.final, error.counts) == (False, True)
    assert "redirect" in str(error)
    assert (len(receiver.messages), len(other.messages)) == (1, 0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0.5", 0.5),
        ("99999999", 3600.0),
        ("-1", None),
        ("nan", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    with Receiver(lambda *_: (503, {"Retry-After": text})) as receiver:
        assert refusal(receiver).wait == seconds


def test_unreachable_receiver_is_reported() -> None:
    error = refusal(Receiver())
    assert (error.final, error.counts, error.reached) == (False, False, False)
    assert "cannot be reached" in str(error)


def test_ended_connection_is_reported() -> None:
    with Receiver(lambda *_: None) as receiver:
        error = refusal(receiver)
    assert (error.final, error.counts, error.reached) == (False, False, True)


def test_silent_receiver_times_out() -> None:
    with Receiver(seconds=60) as receiver:
        error = refusal(receiver, timeout_seconds=2)  # connecting must take less
    assert (error.final, error.counts, error.reached) == (False, True, True)


@pytest.mark.parametrize(
    ("head", "most_bytes", "delivered"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", 1000, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", 1000, True),  # the status counts
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", 3, True),  # then the connection ends
    ],
)
def test_trickling_receiver_times_out(head: bytes, most_bytes: int, delivered: bool) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            for _ in range(most_bytes):
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.1)

    async def work() -> None:
        async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            sink = WebhookSink(webhook(f"http://127.0.0.1:{port}/", timeout_seconds=1))
            try:
                async with asyncio.timeout(30):
                    await sink.deliver(EVENT, redelivered=False)
            finally:
                await sink.close()

    if delivered:
        asyncio.run(work())
        return
    with pytest.raises(DeliveryError, match="in time") as caught:
        asyncio.run(work())
    assert (caught.value.counts, caught.value.reached) == (True, True)


@pytest.mark.parametrize(("body", "connections"), [(b"ok", 1), (bytes(20_000_000), 3)])
def test_connection_is_reused_after_a_small_body(body: bytes, connections: int) -> None:
    with Receiver(lambda *_: (200, {}), body=body) as receiver:
        assert deliver(WebhookSink(webhook(receiver.url)), times=3) is None
        assert (len(receiver.messages), receiver.connections) == (3, connections)


def test_unreadable_authority_is_refused() -> None:
    with pytest.raises(SinkError, match="`ca` of webhook mes"):
        WebhookSink(webhook("https://a/", ca="/nonexistent/ca.pem"))
