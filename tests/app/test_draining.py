import pytest

from app.draining import Draining
from app.problems import Problem


def test_refuses_nothing_before_it_begins() -> None:
    draining = Draining()
    draining.require_not_begun()
    assert not draining.begun


def test_refuses_from_then_on() -> None:
    draining = Draining()
    draining.begin()
    draining.begin()
    for _ in range(2):
        with pytest.raises(Problem) as caught:
            draining.require_not_begun()
        assert caught.value.name == "draining"


def test_says_that_the_port_closes_to_all_who_asked() -> None:
    draining = Draining()
    told: list[str] = []
    draining.on_end(lambda: told.append("a"))
    draining.on_end(lambda: told.append("b"))
    draining.begin()
    assert told == []
    draining.end()
    assert told == ["a", "b"]
