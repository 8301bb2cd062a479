import pytest

from app.history.history import History
from app.history.reviewed_images import ReviewedInspection
from app.recalibration.request_images import (
    AuditedImages,
    CalibrationImage,
    choose_images,
    find_audited_images,
)
from flows.fastflow.bundle.image_digests import ImageDigests
from tests.app.history.rows import add, row


class TestAudited:
    def test_stations_with_own_calibration_are_excluded(self, history: History) -> None:
        stations = ["line-1", "line-3", None, "line-4"]
        made = [row(station=station, verdict="good", audit=True) for station in stations]
        add(history.database, *made)

        def names(station: str | None, *without: str) -> list[str]:
            return [
                one.inspection_id
                for one in find_audited_images(history.database, "tiny", station, without, 0).images
            ]

        ids = [one["id"] for one in made]
        assert names(None) == ids
        assert names(None, "line-3", "line-4") == [ids[0], ids[2]]
        assert names("line-3", "line-3") == [ids[1]]

    def test_audit_sample_excludes_other_reviews(self, history: History) -> None:
        made = [
            row(audit=audit, verdict=verdict, part_id="P-1")
            for audit in (True, False)
            for verdict in ("good", "defect")
        ]
        add(history.database, *made)
        found = find_audited_images(history.database, "tiny", None, (), 0)
        assert [image.inspection_id for image in found.images] == [made[0]["id"]]
        assert found.of_parts == {"P-1": {one["image_sha256"] for one in made}}

    @pytest.mark.parametrize(("station", "unreviewed"), [(None, 2), ("line-1", 1), ("line-3", 0)])
    def test_unreviewed_of_the_station_are_counted(
        self, history: History, station: str | None, unreviewed: int
    ) -> None:
        rows = [row(audit=True, station="line-1"), row(audit=True), row(station="line-3")]
        add(history.database, *rows)
        found = find_audited_images(history.database, "tiny", station, (), 0)
        assert found.unreviewed == unreviewed
        said = f"Inspections of the audit sample without a review: {unreviewed}. The promise holds only"
        assert [text.startswith(said) for text in found.warnings(None)] == [True] * (unreviewed > 0)


@pytest.mark.parametrize("uploaded", [False, True])
def test_part_with_a_known_image_is_excluded(uploaded: bool) -> None:
    known, beside, fresh = "f" * 64, "1" * 64, "2" * 64
    images = [ReviewedInspection("a", 0, beside, "P-1"), ReviewedInspection("b", 0, fresh, "P-2")]
    audited = AuditedImages(images, {"P-1": {known, beside}, "P-2": {fresh}})
    uploads = [CalibrationImage("a.png", known, b"")] if uploaded else []
    chosen = choose_images(uploads, audited, None if uploaded else ImageDigests([known]))
    assert [one.sha256 for one in chosen] == [*(one.sha256 for one in uploads), fresh]


def test_learned_images_of_the_audit_sample_are_named() -> None:
    found = AuditedImages(
        [
            ReviewedInspection("a", 0, "1" * 64, None),
            ReviewedInspection("b", 0, "2" * 64, None),
            ReviewedInspection("c", 0, "3" * 64, "P-3"),
        ],
        {"P-3": {"3" * 64, "4" * 64}},
    )
    [warning] = found.warnings(ImageDigests(["2" * 64, "4" * 64]))  # of P-3, another image was learned
    assert "has learned: 2." in warning
    assert found.warnings(None) == []
