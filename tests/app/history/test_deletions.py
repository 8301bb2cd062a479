import pytest

from app.history.deletions import DeletionGuard
from app.problems import Problem


def test_small_share_is_allowed_and_a_large_one_held() -> None:
    guard = DeletionGuard()
    assert guard.allows("age", 0, 0)
    assert guard.allows("age", 100, 1000)
    assert guard.held() == []
    assert not guard.allows("age", 101, 1000)
    assert not guard.allows("orphans", 2, 1000)
    assert [(held.kind, held.count) for held in guard.held()] == [("age", 101), ("orphans", 2)]
    assert guard.allows("age", 1, 1000)  # the clock or the setting was mended
    assert [held.kind for held in guard.held()] == ["orphans"]


def test_confirmation_is_for_one_pass_of_about_as_much_as_was_shown() -> None:
    guard = DeletionGuard()
    assert not guard.allows("age", 500, 1000)
    assert guard.confirm("age").count == 500
    assert guard.held() == []
    assert guard.is_confirmed("age")
    assert guard.allows("age", 600, 1000)
    assert not guard.allows("age", 500, 1000)
    guard.confirm("age")
    assert not guard.allows("age", 601, 1000)
    assert [held.count for held in guard.held()] == [601]


def test_confirming_what_is_not_held_is_a_conflict() -> None:
    with pytest.raises(Problem, match="No deletion") as caught:
        DeletionGuard().confirm("size")
    assert caught.value.name == "conflict"
