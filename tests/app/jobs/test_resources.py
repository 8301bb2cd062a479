import json
import os
import subprocess
import sys

import pytest

from app.jobs import resources


@pytest.mark.parametrize(
    ("cores", "load", "threads"), [(1, 0, 1), (2, 0, 1), (2, 2, 1), (8, 0.2, 7), (8, 3.4, 5), (8, 30, 1)]
)
def test_one_core_is_left_to_inspections(
    monkeypatch: pytest.MonkeyPatch, cores: int, load: float, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(cores)})
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    assert resources.choose_threads(None) == threads
    assert resources.choose_threads(3) == 3


def test_child_has_low_priority_and_a_group_in_the_same_session() -> None:
    code = (
        "import os, json; score = open('/proc/self/oom_score_adj').read();"
        "print(json.dumps([os.nice(0), score, os.getpgrp() == os.getpid(), os.getsid(0)]))"
    )
    command = resources.as_child([sys.executable, "-c", code])
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    niceness, oom_score, leads, session = json.loads(done.stdout)
    assert niceness >= 10
    assert int(oom_score) == 500
    assert leads
    assert session == os.getsid(0)


def test_child_of_an_ended_parent_does_not_start() -> None:
    command = resources.as_child([sys.executable, "-c", "print('started')"])
    command[3] = "1"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
