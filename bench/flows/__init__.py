"""The library of flows beside others, which the extra `bench` brings."""

import sys
from types import TracebackType

_OTHERS = ("zuko", "normflows", "nflows", "FrEIA", "matplotlib")


def _say_what_is_missing(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    # They are imported in many places, and a traceback does not say which extra they belong to.
    if isinstance(error, ModuleNotFoundError) and error.name in _OTHERS:
        print(f"{error.name} is not installed: pip install -e '.[bench]' in the checkout", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _say_what_is_missing
