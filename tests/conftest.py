import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests on real data, on a GPU and of the whole cross table say why they are skipped."""
    import torch

    folder = os.environ.get("ZOO_DATA_DIR")
    missing = "needs real data sets: set ZOO_DATA_DIR to the folder that holds them"
    for item in items:
        if item.get_closest_marker("data") and not (folder and Path(folder).is_dir()):
            item.add_marker(pytest.mark.skip(reason=missing))
        if item.get_closest_marker("cross") and "cross" not in config.getoption("markexpr"):
            item.add_marker(pytest.mark.skip(reason="pytest -m cross runs these"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and torch sees none"))


@pytest.fixture(autouse=True)
def handlers_are_left_as_they_were() -> Iterator[None]:
    """A handler that a test leaves behind would fail another one of its process, by chance."""
    numbers = [getattr(signal, name, None) for name in ("SIGTERM", "SIGINT", "SIGHUP")]
    before = {number: signal.getsignal(number) for number in numbers if number is not None}
    yield
    after = {number: signal.getsignal(number) for number in before}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == before
