import pytest

from app.database.engine import Database
from app.errors.problems import Problem
from app.history.deletions import DeletionGuard
from app.schemas.deletions import DeletionKind


@pytest.mark.parametrize(
    ("kind", "total", "most"),
    [
        ("age", 0, 100),
        ("age", 900, 100),
        ("age", 2000, 200),
        ("size", 10**9, 100 * 2**20),
        ("size", 10**10, 10**9),
        ("orphans", 10**6, 20),
    ],
)
def test_large_deletions_are_held(kind: DeletionKind, total: int, most: int) -> None:
    guard = DeletionGuard()
    assert guard.allows(kind, most, total)
    assert guard.held() == []
    assert not guard.allows(kind, most + 1, total)
    assert [(held.kind, held.count, held.total) for held in guard.held()] == [(kind, most + 1, total)]
    since = guard.held()[0].since
    assert not guard.allows(kind, most + 2, total)
    assert guard.held()[0].since == since
    assert guard.allows(kind, 1, total)  # the clock, the setting or the database was mended
    assert guard.held() == []


def test_confirmation_holds_for_one_pass_of_the_shown_size() -> None:
    guard = DeletionGuard()
    assert not guard.allows("age", 500, 1000)
    assert guard.confirm("age").count == 500
    assert guard.held() == []
    assert guard.allows("age", 600, 1000)
    assert not guard.allows("age", 500, 1000)
    guard.confirm("age")
    assert not guard.allows("age", 601, 1000)
    assert [held.count for held in guard.held()] == [601]


def test_confirming_what_is_not_held_is_a_conflict() -> None:
    with pytest.raises(Problem, match="No deletion") as caught:
        DeletionGuard().confirm("size")
    assert caught.value.name == "conflict"


def test_servers_share_what_is_held_and_confirmed(postgres_database: Database) -> None:
    leader, other = (DeletionGuard(postgres_database) for _ in range(2))
    assert not leader.allows("age", 500, 1000)
    assert not other.reload()
    assert other.held() == leader.held()
    assert other.confirm("age").count == 500
    assert leader.reload()
    assert leader.is_confirmed("age")
    assert leader.allows("age", 500, 1000)
    assert not other.reload()  # it was used up
    assert (other.held(), other.is_confirmed("age")) == ([], False)
