"""Figures in plain words."""

from app.web.messages import Messages


def p_value_words(say: Messages, p_value: float, n_calibration: int) -> str:
    """Say a p-value as a count of the good images that it was counted from.

    A p-value is (1 + k) / (n + 1), where k of n good pictures scored at least as high.
    """
    k = max(0, round(p_value * (n_calibration + 1)) - 1)
    name = "none" if k == 0 else "usual" if 2 * k > n_calibration else "some"
    return say(f"script.pvalue.{name}", k=k, n=n_calibration)
