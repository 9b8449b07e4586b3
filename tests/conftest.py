"""Settings of all tests.

Property tests have no deadline an example: on a busy machine any example may be slow, and pytest-timeout
already ends a test that hangs.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("t2po", deadline=None)
settings.load_profile("t2po")
