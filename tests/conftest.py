"""Settings of all tests.

Property tests have no deadline an example: on a busy machine any example may be slow, and pytest-timeout
already ends a test that hangs. The file that takes longest is begun first, so that one of several test processes
is busy with it while the others do the rest.
"""

from __future__ import annotations

import pytest
from hypothesis import settings

LONGEST = "test_run_end_to_end.py"

settings.register_profile("t2po", deadline=None)
settings.load_profile("t2po")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name != LONGEST)
