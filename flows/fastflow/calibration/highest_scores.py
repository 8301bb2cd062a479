"""Which good pictures a threshold hangs on: a question to whoever called them good."""

from collections.abc import Sequence

import numpy as np

from flows.fastflow.calibration.conformal import compute_threshold

_NAMED = 5


def highest_scoring(names: Sequence[str], scores: Sequence[float]) -> list[str]:
    """The names of the calibration pictures with the highest scores, highest first; at most five."""
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    return [names[i] for i in order[:_NAMED]]


def describe_highest_scoring(names: Sequence[str], scores: Sequence[float], target_fpr: float) -> str:
    """A line that names them, and says what the threshold would be without the first.

    Args:
        names: from `highest_scoring`.
        scores: of all calibration pictures, in any order.
        target_fpr: see `flows.fastflow.calibration.conformal.compute_threshold`.

    Raises:
        ValueError: as `compute_threshold`.
    """
    ordered = sorted(scores, reverse=True)
    listed = ", ".join(f"{name} {score:.4g}" for name, score in zip(names, ordered, strict=False))
    line = f"highest of {len(ordered)} good pictures to calibrate: {listed}"
    if len(ordered) > 1:
        now, then = (compute_threshold(some, target_fpr) for some in (ordered, ordered[1:]))
        lost = ", and no longer certified" if now.certified and not then.certified else ""
        line += f"; without {names[0]} the threshold would be {then.reject:.4g}, not {now.reject:.4g}{lost}"
    advice = "Take it away only if it is defective, not because it scores high."
    return f"{line}. Is {names[0]} really good? {advice}"
