from contextlib import ExitStack

import pytest

from app.places import Places
from app.problems import Problem


@pytest.mark.parametrize(("limit", "own"), [(1, 1), (2, 1), (3, 2), (4, 2), (64, 32)])
def test_a_key_takes_half_of_the_places_rounded_up(limit: int, own: int) -> None:
    places = Places(limit, "things are made")
    with ExitStack() as stack:
        for _ in range(own):
            stack.enter_context(places.hold("one"))
        if own < limit:
            with pytest.raises(Problem, match=f"{own} things are made with this key"):
                places.expect_room("one")
        for _ in range(limit - own):
            stack.enter_context(places.hold("other"))
        assert places.taken == limit
    assert places.taken == 0


def test_where_there_are_no_keys_all_places_are_for_whoever_comes() -> None:
    places = Places(3, "things are made", "use fewer")
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(places.hold(None))
        for key_id in (None, "one"):
            with pytest.raises(Problem) as caught, places.hold(key_id):
                pass
            assert (caught.value.name, caught.value.detail) == (
                "queue-full",
                "3 things are made, the limit; use fewer.",
            )
    assert places.taken == 0


def test_a_place_is_given_back_whatever_happens_in_it() -> None:
    places = Places(1, "things are made")
    with pytest.raises(KeyError), places.hold("one"):
        raise KeyError
    with places.hold("one"):
        assert places.taken == 1
