"""Equal, better or worse: what paired differences over a few seeds say, and how it is printed."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """By how many nats ours is better than theirs, over seeds.

    Attributes:
        mean: over the seeds.
        error: standard error of that mean.
    """

    mean: float
    error: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ± {self.error:.3f} {self.verdict}"

    @property
    def verdict(self) -> str:
        """Within two standard errors of 0 the two are equal."""
        if not math.isfinite(self.mean) or abs(self.mean) > 2 * self.error:
            return "better" if self.mean > 0 else "worse"
        return "equal"


def difference(means: Sequence[float], errors: Sequence[float] | None = None) -> Difference:
    """Of the differences of each seed.

    Args:
        means: of each seed; inf where theirs could not be fitted, -inf where ours could not.
        errors: standard errors of each of them from the finite number of test samples. They are added to
            the spread over the seeds, which already holds most of them: with two or three seeds that spread
            alone is by chance often far too small.
    """
    if len(means) < 2:
        raise ValueError(f"a standard error over seeds needs at least 2; got {len(means)}")
    mean = math.fsum(means) / len(means) if all(map(math.isfinite, means)) else _worst(means)
    if not math.isfinite(mean):
        return Difference(mean, 0.0)
    test = math.fsum(e**2 for e in errors or ()) / len(means) ** 2
    return Difference(mean, math.sqrt(statistics.variance(means) / len(means) + test))


def _worst(means: Sequence[float]) -> float:
    return -math.inf if -math.inf in means else math.inf


def without_infinities(figures: Mapping[str, Sequence[float]]) -> dict[str, list[float | None]]:
    """Figures as JSON can have them: None for what could not be fitted."""
    return {k: [v if math.isfinite(v) else None for v in values] for k, values in figures.items()}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def tally(verdicts: Sequence[str]) -> str:
    """How many of each."""
    counts = {verdict: verdicts.count(verdict) for verdict in ("better", "equal", "worse")}
    good = counts["better"] + counts["equal"]
    listed = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return f"{good} of {len(verdicts)} pairs equal or better ({listed})"
