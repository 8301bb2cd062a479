"""Which reviewed pictures a calibration is made of, and what holding them takes."""

import tracemalloc

from app.calibration_pictures import fresh, reviewed
from app.history.history import History
from tests.app.history.rows import add, row


class TestReviewed:
    def test_stations_with_a_calibration_of_their_own_are_left_out(self, history: History) -> None:
        stations = ["line-1", "line-3", None, "line-4"]
        made = [row(station=station, verdict="good") for station in stations]
        add(history.database, *made)

        def names(station: str | None, *without: str) -> list[str]:
            return [one.name for one in reviewed(history, "tiny", station, without, 0)]

        ids = [f"inspection {one['id']}" for one in made]
        assert names(None) == ids
        assert names(None, "line-3", "line-4") == [ids[0], ids[2]]
        assert names("line-3", "line-3") == [ids[1]]

    def test_a_part_that_is_inspected_every_day_takes_no_memory_for_each_of_its_reviews(
        self, history: History
    ) -> None:
        add(
            history.database,
            *(row(part_id="master", verdict="good" if i < 300 else None) for i in range(3000)),
        )
        tracemalloc.start()
        found = reviewed(history, "tiny", None, (), 0)
        chosen = fresh(found, [], None)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (len(found), len(chosen)) == (300, 1)
        assert {len(one.of_part) for one in found} == {3000}
        assert len({id(one.of_part) for one in found}) == 1
        assert peak < 20 * 2**20  # a set of 3000 for each of 300 takes 40 MiB
