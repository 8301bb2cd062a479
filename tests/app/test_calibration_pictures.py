"""The reviewed images that a calibration is made of."""

from app.calibration_pictures import reviewed
from app.history.history import History
from tests.app.history.rows import add, row


class TestReviewed:
    def test_stations_with_a_calibration_of_their_own_are_left_out(self, history: History) -> None:
        stations = ["line-1", "line-3", None, "line-4"]
        made = [row(station=station, verdict="good") for station in stations]
        add(history.database, *made)

        def names(station: str | None, *without: str) -> list[str]:
            return [
                one.inspection_id for one in reviewed(history.database, "tiny", station, without, 0).images
            ]

        ids = [one["id"] for one in made]
        assert names(None) == ids
        assert names(None, "line-3", "line-4") == [ids[0], ids[2]]
        assert names("line-3", "line-3") == [ids[1]]
