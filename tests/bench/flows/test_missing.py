"""What a benchmark says where the library it compares with is not installed."""

import subprocess
import sys


def test_a_library_that_is_missing_is_told_in_a_line() -> None:
    code = (
        "import runpy, sys; sys.modules['normflows'] = None; "
        "runpy.run_module('bench.flows.digits', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "normflows is not installed: pip install -e '.[bench]' in the checkout\n"
