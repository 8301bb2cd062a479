from contextlib import ExitStack

import pytest

from app.errors.problems import Problem
from app.scheduling.concurrency_limit import ConcurrencyLimit


@pytest.mark.parametrize(("limit", "own"), [(1, 1), (2, 1), (3, 2), (64, 32)])
def test_key_takes_half_of_the_limit_rounded_up(limit: int, own: int) -> None:
    exports = ConcurrencyLimit(limit, "exports are being sent")
    with ExitStack() as stack:
        for _ in range(own):
            stack.enter_context(exports.hold("one"))
        if own < limit:
            with pytest.raises(Problem, match=f"{own} exports are being sent with this key"):
                exports.require_free("one")
        for _ in range(limit - own):
            stack.enter_context(exports.hold("other"))
        assert exports.held == limit
    assert exports.held == 0


def test_without_keys_the_limit_is_refused_with_advice() -> None:
    exports = ConcurrencyLimit(2, "exports are being sent")
    with exports.hold(None), exports.hold(None):
        with pytest.raises(Problem, match="2 exports are being sent, the limit; try again later") as caught:
            exports.require_free("one")
        assert caught.value.name == "queue-full"


def test_failed_holder_frees_its_place() -> None:
    exports = ConcurrencyLimit(1, "exports are being sent")
    with pytest.raises(KeyError), exports.hold("one"):
        raise KeyError
    exports.require_free("one")
