"""The training loop: deterministic, and bit-identical when resumed."""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flows.fastflow.model.head import Head
from tests.app.support.full_disk import limit_file_size
from training.config.run_config import RunConfig
from training.data.split import Split
from training.features.cache import Features
from training.fit.checkpoint import CHECKPOINT
from training.fit.epoch_metrics import METRICS, EpochMetrics, read_metrics, row_of_final_weights
from training.fit.errors import FitError
from training.fit.training_loop import fit

CPU = torch.device("cpu")
EPOCHS = 4
FIT, HELD_OUT = np.arange(0, 14), np.arange(14, 18)
ROWS = Split(FIT, HELD_OUT)
# Of those to fit some judge when to stop.
WATCHED = Split(FIT[:11], HELD_OUT, FIT[11:])


def config(**fit_settings: Any) -> RunConfig:
    # float32 whatever the machine computes, so that the figures here are the same on all.
    settings = {"epochs": EPOCHS, "batch_size": 4, "precision": "float32", **fit_settings}
    # Of steps there are two kinds, which alternate.
    return RunConfig.model_validate({"flow": {"steps": 2}, "fit": settings})


def features() -> Features:
    """Feature maps of 18 images at two scales, correlated so that there is something to learn."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=(18, 1, 6, 5))
    return [
        (common[:, :, ::step, ::step] + 0.3 * rng.normal(size=(18, c, 6 // step, -(-5 // step)))).astype(
            np.float32
        )
        for c, step in ((6, 1), (9, 2))
    ]


class Killed(BaseException):
    """Stands for SIGKILL, which no `except Exception` sees."""


@dataclass
class Watch:
    """The callbacks of a run, which may kill it at the n-th batch or epoch."""

    at_batch: int | None = None
    at_epoch: int | None = None
    batches: int = 0

    def __post_init__(self) -> None:
        self.epochs: list[EpochMetrics] = []

    def on_batch(self, steps: int) -> None:
        self.batches += steps
        if self.batches == self.at_batch:
            raise Killed

    def on_epoch(self, row: EpochMetrics) -> None:
        self.epochs.append(row)
        if row.epoch == self.at_epoch:
            raise Killed


def run(
    folder: Path,
    settings: RunConfig | None = None,
    *,
    resume: bool = False,
    identity: str = "this run",
    data: Features | None = None,
    watch: Watch | None = None,
    rows: Split = ROWS,
) -> Head:
    watch = watch or Watch()
    told = {"on_batch": watch.on_batch, "on_epoch": watch.on_epoch}
    place: dict[str, Any] = {"device": CPU, "folder": folder, "identity": identity, "resume": resume, **told}
    return fit(settings or config(), data or features(), rows, **place)


def lines(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the seconds, which no two runs share."""
    rows = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    assert all(row.pop("seconds") >= 0 for row in rows)
    return rows


def assert_same_bits(a: Head, b: Head) -> None:
    left, right = a.state_dict(), b.state_dict()
    assert left.keys() == right.keys()
    assert [k for k in left if not torch.equal(left[k], right[k])] == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Head, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return run(folder), folder


def test_it_learns(whole: tuple[Head, Path]) -> None:
    head, folder = whole
    rows = lines(folder)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    for scale in range(2):
        assert rows[-1]["fit_nll"][scale] < rows[0]["fit_nll"][scale]
        assert rows[-1]["held_out_nll"][scale] < rows[0]["held_out_nll"][scale]
    assert not head.training
    assert all(p.isfinite().all() for p in head.parameters())


def test_held_out_loss_is_the_held_out_likelihood(whole: tuple[Head, Path]) -> None:
    head, folder = whole
    maps = [torch.from_numpy(a[HELD_OUT]) for a in features()]
    with torch.no_grad():
        wanted = [float(v) for v in head.flow.nll(head.normaliser(maps))]
    assert lines(folder)[-1]["held_out_nll"] == pytest.approx(wanted, rel=1e-5)


def test_held_out_images_do_not_touch_the_weights(whole: tuple[Head, Path], tmp_path: Path) -> None:
    spoilt = features()
    for array in spoilt:
        array[HELD_OUT] *= -3
    head = run(tmp_path, data=spoilt)
    assert_same_bits(head, whole[0])
    assert lines(tmp_path)[-1]["held_out_nll"] != lines(whole[1])[-1]["held_out_nll"]


def test_the_same_run_twice_gives_the_same_bits(whole: tuple[Head, Path], tmp_path: Path) -> None:
    torch.manual_seed(12345)  # the state of the process does not matter
    np.random.default_rng()
    torch.rand(7)
    assert_same_bits(run(tmp_path), whole[0])
    assert lines(tmp_path) == lines(whole[1])


def test_another_seed_gives_another_model(whole: tuple[Head, Path], tmp_path: Path) -> None:
    other = run(tmp_path, config().model_copy(update={"seed": 1}))
    pairs = zip(other.flow.parameters(), whole[0].flow.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("epoch", [1, EPOCHS])
def test_run_stopped_after_an_epoch_resumes_bit_identically(
    whole: tuple[Head, Path], tmp_path: Path, epoch: int
) -> None:
    with pytest.raises(Killed):
        run(tmp_path, watch=Watch(at_epoch=epoch))
    assert len(lines(tmp_path)) == epoch
    watch = Watch()
    assert_same_bits(run(tmp_path, resume=True, watch=watch), whole[0])
    assert lines(tmp_path) == lines(whole[1])
    # Earlier epochs are reported again, so that the bar and the lines are complete.
    assert watch.batches == EPOCHS * math.ceil(len(FIT) / 4)
    assert [row.epoch for row in watch.epochs] == [1, 2, 3, 4]


@pytest.mark.parametrize("batch", [1, 4, 6, 16])
def test_run_stopped_within_an_epoch_resumes_from_its_start(
    whole: tuple[Head, Path], tmp_path: Path, batch: int
) -> None:
    with pytest.raises(Killed):
        run(tmp_path, watch=Watch(at_batch=batch))
    assert_same_bits(run(tmp_path, resume=True), whole[0])
    assert lines(tmp_path) == lines(whole[1])


@pytest.mark.parametrize("left", ["", '{"epoch": 1, "fit_n'])
def test_run_killed_before_metrics_loses_no_line(whole: tuple[Head, Path], tmp_path: Path, left: str) -> None:
    shutil.copytree(whole[1], tmp_path, dirs_exist_ok=True)
    (tmp_path / METRICS).write_text(left)
    assert_same_bits(run(tmp_path, resume=True), whole[0])
    assert lines(tmp_path) == lines(whole[1])


def test_without_resume_a_checkpoint_is_not_looked_at(whole: tuple[Head, Path], tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"not a checkpoint")
    (tmp_path / METRICS).write_text("not metrics")
    assert_same_bits(run(tmp_path), whole[0])
    assert lines(tmp_path) == lines(whole[1])


@pytest.mark.parametrize("damage", ["empty", "text", "truncated", "other pickle"])
def test_damaged_checkpoint_is_refused(whole: tuple[Head, Path], tmp_path: Path, damage: str) -> None:
    path = tmp_path / CHECKPOINT
    data = (whole[1] / CHECKPOINT).read_bytes()
    if damage == "other pickle":
        torch.save([1, 2, 3], path)
    else:
        path.write_bytes({"empty": b"", "text": b"hello", "truncated": data[: len(data) // 2]}[damage])
    with pytest.raises(FitError, match=r"checkpoint\.pt is damaged; train without --resume"):
        run(tmp_path, resume=True)


def test_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path, identity="another run", watch=Watch(at_epoch=2))
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(FitError, match=r"other settings or other images; train without --resume"):
        run(tmp_path, resume=True)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "exploded",)

    torch.save({"identity": "this run", "head": Bomb()}, tmp_path / CHECKPOINT)
    with pytest.raises(FitError, match="damaged"):
        run(tmp_path, resume=True)
    assert not (tmp_path / "exploded").exists()


def with_value(row: int, value: float) -> Features:
    spoilt = features()
    spoilt[1][row, 0, 1, 1] = value
    return spoilt


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_end_the_run(tmp_path: Path, value: float) -> None:
    with pytest.raises(FitError, match=r"are its weights sound\? scale 1: .* not finite"):
        run(tmp_path, data=with_value(FIT[3], value))
    assert list(tmp_path.iterdir()) == []


def test_held_out_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    """Otherwise the calibration scores are not finite, which is found at the very end."""
    with pytest.raises(FitError, match="not finite in epoch 1"):
        run(tmp_path, data=with_value(HELD_OUT[0], math.nan))
    assert not (tmp_path / CHECKPOINT).exists()


def test_step_that_diverges_is_told(tmp_path: Path) -> None:
    with pytest.raises(FitError, match=r"not finite in epoch .*smaller fit\.learning_rate or flow\.clamp"):
        run(tmp_path, config(learning_rate=1e30))


def test_the_learning_rate_rises_and_ends_near_zero(tmp_path: Path) -> None:
    run(tmp_path, config(epochs=10, learning_rate=1e-3))
    rates = [row["learning_rate"] for row in lines(tmp_path)]
    assert max(rates) <= 1e-3
    assert rates.index(max(rates)) in (1, 2, 3)
    assert rates[-1] < 1e-5


def test_gradients_are_clipped(tmp_path: Path) -> None:
    """To a norm so far below what Adam adds to its divisor that no step moves a weight."""
    run(tmp_path, config(gradient_clip=1e-15, weight_decay=0.0))
    first, *_, last = [row["held_out_nll"] for row in lines(tmp_path)]
    assert last == pytest.approx(first, rel=1e-6)


def test_constant_schedule_leaves_the_learning_rate_alone(tmp_path: Path) -> None:
    watch = Watch()
    run(tmp_path, config(schedule="constant", learning_rate=1e-3), watch=watch)
    assert [row.learning_rate for row in watch.epochs] == [1e-3] * EPOCHS
    again = Watch()
    run(tmp_path, config(schedule="constant", learning_rate=1e-3), resume=True, watch=again)
    assert again.epochs == watch.epochs


def test_full_disk_keeps_the_previous_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path, watch=Watch(at_epoch=2))
    before = (tmp_path / CHECKPOINT).read_bytes()
    with limit_file_size(1000), pytest.raises(FitError, match=r"cannot be written, is the disk full\?"):
        run(tmp_path, resume=True)
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert list(tmp_path.glob("*.part")) == []


def test_updates_decide_the_number_of_epochs(tmp_path: Path) -> None:
    """14 images in batches of 4 are 4 updates: the fewest epochs that give 9 are 3, of 12 updates."""
    watch = Watch()
    run(tmp_path, config(epochs=None, steps=9), watch=watch)
    assert ([row.epoch for row in watch.epochs], watch.batches) == ([1, 2, 3], 12)
    assert watch.epochs[-1].learning_rate < 4e-3 / 20  # the schedule ends with them


def test_every_epoch_has_noise_of_its_own(tmp_path: Path) -> None:
    """Of one image again and again, and weights that stand still, epochs differ in nothing else."""
    alike = Split(np.full_like(FIT, FIT[0]), HELD_OUT)
    run(tmp_path, config(schedule="constant", learning_rate=1e-30, noise=0.3), rows=alike)
    assert len({tuple(row["fit_nll"]) for row in lines(tmp_path)}) == EPOCHS


def test_in_bfloat16_it_is_nearly_the_same_fit(whole: tuple[Head, Path], tmp_path: Path) -> None:
    run(tmp_path, config(precision="bfloat16"))
    for ours, theirs in zip(lines(tmp_path), lines(whole[1]), strict=True):
        assert ours["fit_nll"] != theirs["fit_nll"]
        assert ours["fit_nll"] == pytest.approx(theirs["fit_nll"], abs=0.01)


PATIENCE = 3
MOST = 40


def until_it_stops() -> RunConfig:
    """Images that judge get unlikelier again, after some epochs."""
    stopping = {"patience": PATIENCE, "fraction": 0.2}
    return config(epochs=MOST, schedule="constant", learning_rate=0.01, stopping=stopping)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Head, Path]:
    folder = tmp_path_factory.mktemp("stopped")
    return run(folder, until_it_stops(), rows=WATCHED), folder


class TestStopping:
    def test_it_stops_when_the_best_epoch_is_so_long_ago(self, stopped: tuple[Head, Path]) -> None:
        judged = [sum(row["validation_nll"]) for row in lines(stopped[1])]
        assert PATIENCE < len(judged) < MOST
        best = judged.index(min(judged))
        assert len(judged) == best + 1 + PATIENCE
        for epoch in range(best):  # and no sooner
            assert min(judged[epoch + 1 : epoch + 1 + PATIENCE]) < min(judged[: epoch + 1])

    def test_the_weights_are_those_of_the_best_epoch(
        self, stopped: tuple[Head, Path], tmp_path: Path
    ) -> None:
        head, folder = stopped
        rows = read_metrics(folder)
        best = row_of_final_weights(rows)
        assert best["epoch"] == len(rows) - PATIENCE
        assert not head.training
        for name, part in (("validation_nll", WATCHED.validation), ("held_out_nll", WATCHED.calibration)):
            maps = [torch.from_numpy(a[part]) for a in features()]
            with torch.no_grad():
                found = [float(v) for v in head.flow.nll(head.normaliser(maps))]
            assert found == pytest.approx(best[name], rel=1e-4)
            assert found != pytest.approx(rows[-1][name], rel=1e-3)
        # Without a rule, a run that ends with that epoch has the same.
        plain = until_it_stops().model_dump()
        plain["fit"] |= {"epochs": best["epoch"], "stopping": None}
        assert_same_bits(run(tmp_path, RunConfig.model_validate(plain), rows=WATCHED), head)
        assert lines(tmp_path)[-1]["validation_nll"] is None

    @pytest.mark.parametrize("after", ["the first", "the best", "the last"])
    def test_early_stopped_run_resumes_bit_identically(
        self, stopped: tuple[Head, Path], tmp_path: Path, after: str
    ) -> None:
        total = len(lines(stopped[1]))
        epoch = {"the first": 1, "the best": total - PATIENCE, "the last": total}[after]
        with pytest.raises(Killed):
            run(tmp_path, until_it_stops(), rows=WATCHED, watch=Watch(at_epoch=epoch))
        watch = Watch()
        resumed = run(tmp_path, until_it_stops(), rows=WATCHED, resume=True, watch=watch)
        assert_same_bits(resumed, stopped[0])
        assert lines(tmp_path) == lines(stopped[1])
        assert [row.epoch for row in watch.epochs] == list(range(1, total + 1))
