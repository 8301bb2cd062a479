import json

import pytest

from app.inspection.answer import read_answer


def test_answer_of_an_earlier_version_is_completed() -> None:
    used = {"n_calibration": 99, "target_fpr": 0.01}
    answer = read_answer(json.dumps({"threshold": used}))
    confident = answer["threshold"].pop("fpr_at_95_confidence")
    assert confident == pytest.approx(1 - 0.05 ** (1 / 99))
    assert answer == {"threshold": used, "audit": False, "warnings": [], "file_name": None}
