import logging

import pytest
from sqlalchemy import select

from app.access import ANONYMOUS, Caller, Role
from app.audit import Audit
from app.database import clock
from app.database.engine import Database
from app.database.tables import audit as table

ADMIN = Caller("4f1d8a02c7b96e35", "Überwachung", Role.ADMIN)


@pytest.fixture
def audit(database: Database) -> Audit:
    return Audit(database)


def test_keeps_all_that_an_auditor_asks(audit: Audit) -> None:
    before = clock.now_ms()
    audit.write(ADMIN, "model.activate", "bottle/v1", "done", {"previous": "v0"}, "r-1")
    [entry] = audit.page(10)
    assert before <= entry.created_ms <= clock.now_ms()
    assert (entry.actor, entry.role) == ("4f1d8a02c7b96e35 Überwachung", "admin")
    assert (entry.action, entry.target, entry.outcome) == ("model.activate", "bottle/v1", "done")
    assert (entry.detail, entry.request_id) == ({"previous": "v0"}, "r-1")


def test_pages_from_the_latest_to_the_first(audit: Audit) -> None:
    for i in range(7):
        audit.write(ANONYMOUS, "a", str(i), "done")
    pages, before = [], None
    while entries := audit.page(3, before):
        pages.append([int(entry.target) for entry in entries])
        before = entries[-1].number
    assert pages == [[6, 5, 4], [3, 2, 1], [0]]


def test_filters(audit: Audit) -> None:
    for action in ("key.create", "key.revoke"):
        for target in ("x", "y"):
            audit.write(ANONYMOUS, action, target, "done")
    assert len(audit.page(10, action="key.create")) == 2
    assert len(audit.page(10, action="key.create", target="x")) == 1
    assert audit.page(10, target="x' OR '1'='1") == []
    assert audit.page(10, target="x\x00") == []  # PostgreSQL would fail on it


@pytest.mark.parametrize("target", ["a\x00b", "a\nb", "\ud800", "a\u202eb", "a" * 5000, "\x1b[2J"])
def test_any_target_can_be_kept_and_none_can_forge_a_line(
    audit: Audit, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flowgauge.audit")
    audit.write(Caller("1" * 16, target[:128], Role.ADMIN), "a", target, "done", {"x": target}, "r")
    [entry] = audit.page(10)
    assert len(entry.target) <= 256
    assert entry.target.isprintable()
    assert entry.actor.isprintable()
    assert entry.detail == {"x": target}
    assert caplog.messages
    assert all(message.isprintable() for message in caplog.messages)


def test_is_part_of_the_acts_transaction(audit: Audit, database: Database) -> None:
    def act() -> None:
        with database.write() as connection:
            audit.add(connection, ANONYMOUS, "a", "t", "done")
            raise RuntimeError("the act fails")

    with pytest.raises(RuntimeError):
        act()
    with database.read() as connection:
        assert connection.execute(select(table)).all() == []
