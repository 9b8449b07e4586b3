"""Actor handles without Ray: `handle.method.remote(...)` gives a coroutine, as awaiting a Ray reference does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Method:
    """Calls `answer(*arguments)` once it is awaited; an answer that is awaitable is awaited too."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        self._answer = answer

    def remote(self, *arguments: Any) -> Any:
        async def reply() -> Any:
            answer = self._answer(*arguments)
            return await answer if hasattr(answer, "__await__") else answer

        return reply()


class Handle:
    """Every method of `part` by `.remote`; killed, every call fails."""

    def __init__(self, part: Any) -> None:
        self.part = part
        self.killed = False

    def __getattr__(self, name: str) -> Method:
        def answer(*arguments: Any) -> Any:
            if self.killed:
                raise ConnectionError("the actor died")
            return getattr(self.part, name)(*arguments)

        return Method(answer)
