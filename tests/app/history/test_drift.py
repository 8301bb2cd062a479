import itertools
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from app.database.clock import first_id, id_to_ms, iso
from app.history.comparison import FALSE_ALARMS
from app.history.drift import LOOKS, DriftMonitor, DriftReference, DriftState, Row

Values = NDArray[np.float64]
TIMES = itertools.count(1_000_000)  # milliseconds since 1970


def reference(
    scores: Values, features: Values | None = None, version: str = "v1", rising_only: bool = False
) -> DriftReference:
    samples = {"score": np.sort(scores)}
    if features is not None:
        samples |= {f"feature {i}": np.sort(column) for i, column in enumerate(features.T)}
    return DriftReference(version, (), rising_only, samples)


def rows(
    scores: Values, features: Values | None = None, version: str = "v1", category: str = "tiny"
) -> Iterator[Row]:
    for i, score in enumerate(scores):
        values = None if features is None else json.dumps(features[i].tolist())
        yield {
            "id": first_id(next(TIMES)),
            "category": category,
            "version": version,
            "precision": "float32",
            "score": float(score),
            "features": values,
        }


def watch(compared: DriftReference | None, window: int = 100, before: Sequence[Row] = ()) -> DriftMonitor:
    def latest(category: str, limit: int, station: str | None, without: object, first: str) -> Sequence[Row]:
        return [row for row in before if row["id"] >= first][-limit:]

    return DriftMonitor(window, lambda *_: compared, latest)


def seen(drift: DriftMonitor) -> DriftState:
    state = drift.state("tiny")
    assert state is not None
    return state


def alarms_within(drift: DriftMonitor, stream: Sequence[Row], parts: int = 20) -> int | None:
    """Return the number of inspections at the alarm, or None; they are added in a few batches."""
    for i in range(0, len(stream), len(stream) // parts):
        drift.on_filed(stream[i : i + len(stream) // parts])
        if seen(drift).alarm:
            return min(len(stream), i + len(stream) // parts)
    return None


@pytest.mark.parametrize(
    ("n_calibration", "ties"), [(8, True), (40, False), pytest.param(200, True, marks=pytest.mark.slow)]
)
def test_exchangeable_streams_keep_the_alarm_rate(n_calibration: int, ties: bool) -> None:
    rng = np.random.default_rng(n_calibration)
    repetitions, window = 400, 100

    def draw(n: int) -> Values:
        values = rng.gamma(2.0, size=(n, 3))
        return values.round(0) if ties else values

    alarms = 0
    for _ in range(repetitions):
        calibration, stream = draw(n_calibration), draw(window)
        drift = watch(reference(calibration[:, 0], calibration[:, 1:]), window)
        alarms += alarms_within(drift, list(rows(stream[:, 0], stream[:, 1:]))) is not None
    assert alarms <= stats.binom.ppf(0.999, repetitions, FALSE_ALARMS)


def test_scores_of_another_engine_are_ignored() -> None:
    rng = np.random.default_rng(12)
    drift = watch(reference(rng.normal(size=100)))
    other: list[Row] = [{**row, "precision": "bfloat16"} for row in rows(rng.normal(5, size=100))]
    drift.on_filed(other)
    assert (seen(drift).inspections, seen(drift).alarm) == (0, False)
    drift.on_filed(list(rows(rng.normal(5, size=100))))
    assert (seen(drift).inspections, seen(drift).alarm) == (100, True)


def test_row_read_and_announced_counts_once() -> None:
    filed = list(rows(np.zeros(3)))
    drift = watch(reference(np.zeros(9)), before=filed)
    drift.on_filed(filed[1:])
    assert seen(drift).inspections == 3


@pytest.mark.parametrize("rising", [False, True])
def test_statistics_agree_with_scipy(rising: bool) -> None:
    rng = np.random.default_rng(4)
    calibration, stream = rng.normal(size=37), rng.normal(0.4, size=100)
    drift = watch(reference(calibration, rising_only=rising))
    drift.on_filed(list(rows(stream)))
    [score] = seen(drift).comparisons
    alternative = "less" if rising else "two-sided"
    expected = stats.ks_2samp(stream, calibration, alternative=alternative, method="exact")
    assert score.distance == pytest.approx(expected.statistic)
    assert score.p_value == pytest.approx(min(1, LOOKS * expected.pvalue), abs=1e-9)
    u = stats.mannwhitneyu(stream, calibration).statistic
    assert score.shift == pytest.approx(2 * u / (100 * 37) - 1)
    assert (score.inspections, score.n_calibration) == (100, 37)


def test_alarm_ends_when_parts_are_normal_again(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(5)
    drift = watch(reference(rng.normal(size=100)))
    with caplog.at_level(logging.WARNING, "flowgauge.drift"):
        drift.on_filed(list(rows(rng.normal(3, size=100))))
        drift.on_filed(list(rows(rng.normal(3, size=100))))
        assert seen(drift).alarm
        drift.on_filed(list(rows(rng.normal(size=100))))
    assert not seen(drift).alarm
    told = [("differ" in r.message, "again" in r.message) for r in caplog.records]
    assert told == [(True, False), (False, True)]


def test_alarm_stays_while_parts_are_nearly_as_different() -> None:
    calibration = np.arange(100.0)
    drift = watch(reference(calibration))
    distances = []

    def shifted(by: float) -> bool:
        drift.on_filed(list(rows(calibration + by)))
        [score] = seen(drift).comparisons
        assert score.alarm_distance is not None
        distances.append(score.distance / score.alarm_distance)
        return seen(drift).alarm

    assert shifted(60.0)
    least = 60.0 / distances[0]
    assert [shifted(share * least) for share in (0.9, 0.8, 0.6, 0.9)] == [True, True, False, False]
    assert distances[1:] == pytest.approx([0.9, 0.8, 0.6, 0.9], abs=0.05)


def test_window_holds_only_the_latest_inspections() -> None:
    rng = np.random.default_rng(6)
    drift = watch(reference(rng.normal(size=50)), window=40)
    stream = list(rows(rng.normal(size=100)))
    for i in range(0, 100, 7):
        drift.on_filed(stream[i : i + 7])
    state = seen(drift)
    assert (state.inspections, state.since) == (40, iso(id_to_ms(stream[60]["id"])))


def test_new_active_version_begins_a_new_window() -> None:
    rng = np.random.default_rng(7)
    calibration = rng.normal(size=50)
    active = reference(calibration)
    drift = DriftMonitor(40, lambda *_: active, lambda *_: [])
    drift.on_filed(list(rows(rng.normal(5, size=40))))
    assert seen(drift).alarm
    active = reference(calibration, version="v2")
    assert seen(drift) == DriftState("v2")
    # Inspections by a version that is not active were requested by name.
    drift.on_filed(list(rows(rng.normal(5, size=40), version="v1")))
    assert seen(drift).inspections == 0
    drift.on_filed(list(rows(rng.normal(size=40), version="v2")))
    assert (seen(drift).inspections, seen(drift).alarm) == (40, False)
    active = reference(calibration)
    assert seen(drift) == DriftState("v1")


def test_station_with_own_calibration_has_own_window() -> None:
    rng = np.random.default_rng(16)
    general, own = reference(rng.normal(size=50)), reference(rng.normal(5, size=50))
    own = replace(own, station="line-3")
    stream = [
        {**row, "station": station}
        for station, mean in (("line-3", 5), ("line-4", 0), (None, 0))
        for row in rows(rng.normal(mean, size=40))
    ]
    drift = DriftMonitor(
        40,
        lambda _, station: own if station == "line-3" else general,
        lambda *_: [],
        stations=lambda _: ["line-3"],
    )
    drift.on_filed(stream)
    states = {station: drift.state("tiny", station) for station in (None, "line-3", "line-4")}
    assert {
        station: state and (state.station, state.inspections, state.alarm)
        for station, state in states.items()
    } == {None: (None, 40, False), "line-3": ("line-3", 40, False), "line-4": (None, 40, False)}
    drift.on_filed([{**row, "station": "line-3"} for row in rows(np.zeros(40))])
    windows = [(state.station, state.alarm) for state in drift.windows("tiny")]
    assert windows == [(None, False), ("line-3", True)]
    assert drift.states() == {"tiny": drift.windows("tiny")}


def test_rows_without_features_are_compared_by_score_alone() -> None:
    rng = np.random.default_rng(10)
    drift = watch(reference(rng.normal(size=50), rng.normal(size=(50, 2))))
    drift.on_filed(list(rows(rng.normal(size=100))))
    assert [c.name for c in seen(drift).comparisons] == ["score"]
    drift.on_filed(list(rows(rng.normal(size=10), rng.normal(size=(10, 2)))))
    assert [c.inspections for c in seen(drift).comparisons] == [100, 10, 10]
