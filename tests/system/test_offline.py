"""Without a network: training, serving and inspecting work; missing weights are explained."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.processes import environment

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def isolated() -> list[str]:
    """Prefix of a command line that runs a command without a network."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare: network namespaces are a thing of Linux")
    for options in (["-n"], ["-rn"]):
        command = ["unshare", *options]
        if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            return command
    pytest.skip("this machine does not allow us a network namespace (unshare -rn)")


def test_train_serve_and_inspect_without_a_network(
    isolated: list[str], tiny_data: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [*isolated, sys.executable, "-m", "tests.system.offline", tmp_path, tiny_data, tiny_yaml],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        timeout=540,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert "published and active" in said["trained"]
    local, served = json.loads(said["local"]), json.loads(said["served"])
    assert local["decision"] == served["decision"] == "REJECT"
    assert served["score"] == pytest.approx(local["score"], rel=1e-5)
    assert "no weights found for the backbone resnet18. Ways to get them:" in said["refused"]
