import base64
import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from app.audit import Audit
from app.commands.webhooks import app
from app.database.engine import Database
from app.feed.log import Event
from app.settings import settings_from
from app.sinks.dead_letters import DeadLetters
from app.sinks.errors import SinkError
from app.sinks.webhook import WebhookSink
from tests.receiver import Answer, Receiver

SECRET = f"whsec_{base64.b64encode(b'k' * 32).decode()}"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def dead() -> DeadLetters:
    """The letters of the webhook `mes`."""
    return DeadLetters(settings_from().history / "sinks" / "webhook-mes.dead.ndjson")


def give_up(dead: DeadLetters, *names: str) -> None:
    for name in names:
        data = {
            "inspection_id": name,
            "created_at": "2026-11-25T01:15:00.123Z",
            "category": "bottle",
            "station": "line-3",
            "decision": "REJECT",
        }
        dead.add(Event("inspection", "bottle", "line-3", "REJECT", json.dumps(data), 1), "answered 404")


def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    file = tmp_path / "webhooks.yaml"
    content = {
        "hosts": ["127.0.0.1"],
        "networks": ["127.0.0.0/8"],
        "webhooks": [{"name": "mes", "url": url, "secret": SECRET}],
    }
    file.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("FLOWGAUGE_WEBHOOKS", str(file))


def sent(receiver: Receiver) -> list[str]:
    return [message.id for message in receiver.messages]


def test_letters_are_listed_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: DeadLetters
) -> None:
    configure(tmp_path, monkeypatch, "http://127.0.0.1:9/hook")
    give_up(dead, "a", "b")
    found = run("list", "--json")
    assert json.loads(found.stdout) == [{"name": "mes", "host": "127.0.0.1", "dead_letters": 2}]
    assert run("list").stdout.split() == ["mes", "127.0.0.1", "dead", "letters:", "2"]
    assert SECRET not in found.output


def test_what_was_given_up_is_sent_again_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: DeadLetters
) -> None:
    give_up(dead, "a", "b", "c")
    with Receiver() as receiver:
        configure(tmp_path, monkeypatch, receiver.url)
        result = run("redeliver", "mes")
        assert result.exit_code == 0, result.output
        assert result.stdout == f"3 delivered, 0 kept in {dead.path.parent}\n"
        assert run("redeliver", "mes").stdout.startswith("There are no dead letters of mes")
    assert sent(receiver) == ["a", "b", "c"]
    assert all(message.content["redelivered"] is True for message in receiver.messages)
    assert all(message.headers["webhook-signature"].startswith("v1,") for message in receiver.messages)
    assert len(dead) == 0


def test_one_that_is_refused_is_kept_and_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: DeadLetters
) -> None:
    def refuse_b(_: int, body: bytes) -> Answer:
        return (422 if json.loads(body)["data"]["inspection_id"] == "b" else 204), {}

    give_up(dead, "a", "b", "c")
    with Receiver(refuse_b) as receiver:
        configure(tmp_path, monkeypatch, receiver.url)
        result = run("redeliver", "mes")
    assert result.exit_code == 1
    assert result.stdout == f"2 delivered, 1 kept in {dead.path.parent}\n"
    assert "an event is kept: the receiver answers 422" in result.stderr
    with dead.taken() as lines:
        assert [json.loads(line)["data"]["inspection_id"] for line in lines] == ["b"]


@pytest.mark.parametrize(("status", "tried"), [(404, "bcd"), (500, "bcd"), (503, "b"), (429, "b")])
def test_a_receiver_that_takes_none_is_not_asked_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: DeadLetters, status: int, tried: str
) -> None:
    def broken_from_b(number: int, _: bytes) -> Answer:
        return (204 if number == 0 else status), {}

    give_up(dead, *"abcdefg")
    with Receiver(broken_from_b) as receiver:
        configure(tmp_path, monkeypatch, receiver.url)
        result = run("redeliver", "mes")
        assert result.exit_code == 1
        left = 7 - len(tried)  # of which the last was tried
        assert f"error: {left} were not sent: the receiver answers {status}" in result.stderr
        assert result.stdout.startswith("1 delivered, 6 kept")
        assert sent(receiver) == ["a", *tried]
        receiver.answer = lambda *_: (204, {})
        assert run("redeliver", "mes").exit_code == 0
    assert sent(receiver) == ["a", *tried, *"bcdefg"]


def test_one_that_the_receiver_always_fails_over_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: DeadLetters
) -> None:
    """As it was given up for: so that others go on."""

    def fails_over(_: int, body: bytes) -> Answer:
        return (500 if json.loads(body)["data"]["inspection_id"] in "ace" else 204), {}

    give_up(dead, *"abcdefgh")
    with Receiver(fails_over) as receiver:
        configure(tmp_path, monkeypatch, receiver.url)
        result = run("redeliver", "mes")
    assert result.stdout.startswith("5 delivered, 3 kept")
    with dead.taken() as lines:
        assert [json.loads(line)["data"]["inspection_id"] for line in lines] == ["a", "c", "e"]


def test_an_error_that_nobody_foresaw_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: DeadLetters
) -> None:
    deliver = WebhookSink.deliver

    async def fails_over_b(self: WebhookSink, event: Event, redelivered: bool) -> None:
        if json.loads(event.data)["inspection_id"] == "b":
            raise RuntimeError("nobody foresaw it")
        await deliver(self, event, redelivered)

    monkeypatch.setattr(WebhookSink, "deliver", fails_over_b)
    give_up(dead, *"abc")
    with Receiver() as receiver:
        configure(tmp_path, monkeypatch, receiver.url)
        result = run("redeliver", "mes")
    assert result.exit_code == 1
    assert result.stdout == f"2 delivered, 1 kept in {dead.path.parent}\n"
    assert "an error that was not foreseen: RuntimeError" in result.stderr
    assert sent(receiver) == ["a", "c"]


def test_a_receiver_that_is_not_there_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: DeadLetters
) -> None:
    give_up(dead, "a", "b")
    configure(tmp_path, monkeypatch, Receiver().url)
    result = run("redeliver", "mes")
    assert result.exit_code == 1
    assert "2 were not sent: the receiver cannot be reached" in result.stderr
    assert len(dead) == 2


def test_a_line_that_was_cut_off_is_kept_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: DeadLetters
) -> None:
    give_up(dead, "a")
    with dead.path.open("a") as file:
        file.write('{"given_up": "2026')
    with Receiver() as receiver:
        configure(tmp_path, monkeypatch, receiver.url)
        result = run("redeliver", "mes")
    assert result.exit_code == 1
    assert "1 of those kept cannot be read" in result.stderr
    assert sent(receiver) == ["a"]
    assert len(dead) == 1


def test_the_audit_log_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: DeadLetters) -> None:
    database = Database(settings_from().database_url)
    database.prepare()
    give_up(dead, "a", "b")
    with Receiver() as receiver:
        configure(tmp_path, monkeypatch, receiver.url)
        assert run("redeliver", "mes").exit_code == 0
    ended, begun = Audit(database).page(10)
    database.close()
    assert (begun.action, begun.target, begun.outcome) == ("webhook.redeliver", "mes", "begun")
    assert (ended.outcome, ended.actor) == ("done", "command line")
    assert ended.detail == {"begun": begun.number, "delivered": 2, "kept": 0}


def test_the_audit_log_is_that_of_the_history_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = tmp_path / "another"
    history.mkdir()
    database = Database(settings_from(history=history).database_url)
    database.prepare()
    give_up(DeadLetters(history / "sinks" / "webhook-mes.dead.ndjson"), "a")
    with Receiver() as receiver:
        configure(tmp_path, monkeypatch, receiver.url)
        result = run("redeliver", "mes", "--history", str(history))
        assert result.exit_code == 0, result.output
    assert "no audit log" not in result.stderr
    assert [entry.action for entry in Audit(database).page(10)] == ["webhook.redeliver"] * 2
    database.close()
    assert not settings_from().history.exists()


def test_what_is_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (["list"], ["redeliver", "mes"]):
        with pytest.raises(SinkError, match="set FLOWGAUGE_WEBHOOKS"):
            CliRunner().invoke(app, arguments, catch_exceptions=False)
    configure(tmp_path, monkeypatch, "http://127.0.0.1:9/hook")
    with pytest.raises(SinkError, match="there is no webhook 'erp', but: mes"):
        CliRunner().invoke(app, ["redeliver", "erp"], catch_exceptions=False)
