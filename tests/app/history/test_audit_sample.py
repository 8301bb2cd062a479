import pytest

from app.database import clock
from app.history.audit_sample import is_drawn


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 1])
def test_share_of_the_ids_is_drawn(share: float) -> None:
    ids = [clock.new_id() for _ in range(10_000)]
    drawn = [is_drawn(identifier, share) for identifier in ids]
    # Five standard deviations.
    assert sum(drawn) == pytest.approx(10_000 * share, abs=5 * (10_000 * share * (1 - share)) ** 0.5)
    assert drawn == [is_drawn(identifier, share) for identifier in ids]
