import pytest

from app.client import errors
from app.client.retries import Attempts, Reconnecting
from app.schemas.problem import ProblemDetails


class Clock:
    """Stands still unless it is told otherwise."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def busy(retry_after: float | None = None, name: str = "queue-full") -> errors.ProblemError:
    details = ProblemDetails(type=name, title="", status=503, detail="d", instance="", request_id="")
    return errors.of_details(details, retry_after)


def test_the_server_says_when() -> None:
    clock = Clock()
    attempts = Attempts(10, repeatable=False, clock=clock)
    assert attempts.pause(busy(7)) == 7
    clock.now += 4
    with pytest.raises(errors.QueueFullError):  # would end after the patience
        attempts.pause(busy(7))
    assert attempts.pause(busy(6)) == 6


def test_pauses_grow_up_to_a_limit_where_it_does_not() -> None:
    attempts = Attempts(1e9, repeatable=True, clock=Clock())
    pauses = [attempts.pause(errors.UnreachableError("", sent=True)) for _ in range(40)]
    assert 0.05 <= pauses[0] <= 0.1
    assert all(0.05 <= pause <= 5 for pause in pauses)
    assert all(2.5 <= pause <= 5 for pause in pauses[10:])
    assert len(set(pauses)) > 30


@pytest.mark.parametrize(
    ("error", "repeatable", "again"),
    [
        (busy(), False, True),
        (busy(name="draining"), False, True),
        (errors.UnreachableError("", sent=False), False, True),
        (errors.UnreachableError("", sent=True), False, False),
        (errors.UntrustedError("", sent=False), True, False),
        (errors.UnreachableError("", sent=True), True, True),
        (errors.UnsendableError(""), True, False),
        (errors.UnexpectedAnswerError("", 502), True, True),
        (errors.UnexpectedAnswerError("", 502), False, False),
        (errors.UnexpectedAnswerError("", 408), True, True),
        (errors.UnexpectedAnswerError("", 500), True, False),
        (errors.UnexpectedAnswerError("", 413), True, False),
        (busy(name="internal"), True, False),
        (busy(name="deadline-exceeded"), True, False),
        (busy(name="undecodable-image"), True, False),
        (busy(name="unauthenticated"), True, False),
        (busy(name="conflict"), True, False),
        (busy(name="of-a-later-server"), True, False),
    ],
)
def test_what_is_sent_again(error: errors.FlowGaugeError, repeatable: bool, again: bool) -> None:
    attempts = Attempts(10, repeatable=repeatable, clock=Clock())
    if again:
        assert attempts.pause(error) > 0
        return
    with pytest.raises(type(error)) as caught:
        attempts.pause(error)
    assert caught.value is error


def test_patience_counts_from_when_a_connection_is_lost_that_stood() -> None:
    clock = Clock()
    lost = errors.UnreachableError("", sent=True)
    reconnecting = Reconnecting(10, clock=clock)
    reconnecting.let_in()
    clock.now += 1000  # quiet, and well
    reconnecting.pause(lost)
    clock.now += 9
    reconnecting.let_in()
    reconnecting.served()
    clock.now += 9
    reconnecting.pause(lost)
    clock.now += 11
    with pytest.raises(errors.UnreachableError):
        reconnecting.pause(lost)


def test_a_server_that_lets_in_and_breaks_at_once_is_as_good_as_away() -> None:
    clock = Clock()
    reconnecting = Reconnecting(10, clock=clock)
    pauses: list[float] = []

    def again() -> None:
        reconnecting.let_in()
        pauses.append(reconnecting.pause(errors.UnreachableError("", sent=True)))
        clock.now += pauses[-1]

    def for_long() -> None:
        for _ in range(1000):
            again()

    with pytest.raises(errors.UnreachableError):
        for_long()
    assert 2 < sum(pauses) <= 10
    assert pauses[-1] > 10 * pauses[0]
