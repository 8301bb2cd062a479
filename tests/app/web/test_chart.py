import pytest

from app.history.browsing import ScorePoint
from app.web.chart import HEIGHT, SCALE_WIDTH, WIDTH, Axis, Scale, ScoreChart


def scored(score: float, reject: float = 3.0, review: float | None = None, version: str = "v1") -> ScorePoint:
    return ScorePoint("id", 0, version, "PASS", score, None, None, reject, review)


def test_an_axis_places_values_and_ends_where_it_ends() -> None:
    axis = Axis(0, 10, 100, 200)
    assert [axis.at(value) for value in (-5, 0, 2.5, 10, 99)] == [100, 100, 125, 200, 200]
    assert Axis(0, 10, 200, 100).at(2.5) == 175


@pytest.mark.parametrize(
    ("low", "high", "ticks", "digits"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10], 0),
        (-1.2, 1.1, [-1, -0.5, 0, 0.5, 1], 1),
        (3.01, 3.07, [3.02, 3.04, 3.06], 2),
        (0, 0.0009, [0, 0.0002, 0.0004, 0.0006, 0.0008], 4),
        (900, 5100, [1000, 2000, 3000, 4000, 5000], 0),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float], digits: int) -> None:
    axis = Axis(low, high, 0, 1)
    assert axis.ticks == pytest.approx(ticks)
    assert axis.digits == digits


def test_everything_is_within_the_drawing() -> None:
    values = [1.0, 2.0, 50.0, -3.0]
    chart = ScoreChart.of([scored(value, reject=9.0, review=8.0) for value in values])
    assert chart is not None
    assert all(0 < point.x < WIDTH and 0 < point.y < HEIGHT for point in chart.points)
    assert [point.x for point in chart.points] == sorted(point.x for point in chart.points)
    assert min(chart.points, key=lambda p: p.y).of.score == 50.0


def test_one_inspection_exactly_on_its_threshold_is_a_chart() -> None:
    chart = ScoreChart.of([scored(3.0)])
    assert chart is not None
    assert chart.points[0].y == chart.y.at(3.0)


def test_a_threshold_is_a_line_that_steps_and_leaves_gaps() -> None:
    reviews = [None, 1.0, 1.0, 2.0, None, 2.0]
    chart = ScoreChart.of([scored(0.0, review=review) for review in reviews])
    assert chart is not None
    x, y = chart.x, chart.y
    first = f"M{x.at(0.5)} {y.at(1)}H{x.at(2.5)}L{x.at(2.5)} {y.at(2)}H{x.at(3.5)}"
    assert chart.review == f"{first}M{x.at(4.5)} {y.at(2)}H{x.at(5.5)}"
    assert chart.reject == f"M{x.at(-0.5)} {y.at(3)}H{x.at(5.5)}"


def test_says_where_a_version_begins() -> None:
    chart = ScoreChart.of([scored(0.0, version=version) for version in ("v1", "v1", "v2", "v1")])
    assert chart is not None
    assert [point.x for point in chart.changes] == [chart.x.at(2), chart.x.at(3)]


@pytest.mark.parametrize(("score", "reject"), [(3.0, 3.0), (30.0, 3.0), (0.0, 0.0), (2.0, -1.0)])
def test_a_scale_shows_score_and_limit_apart_in_their_order(score: float, reject: float) -> None:
    scale = Scale.of(score, reject, reject - 1, [scored(reject + 1)])
    assert scale.review is not None
    assert 0 < scale.review < scale.reject < SCALE_WIDTH
    assert 0 < scale.score < SCALE_WIDTH
    assert (scale.score > scale.reject) == (score > reject)
    assert len(scale.others) == 1
