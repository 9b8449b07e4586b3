"""The finder of waits on small sources: what it takes for a wait, and when it sees a deadline."""

from __future__ import annotations

import pytest

from tests.unit.wait_finder import find_waits, functions_of

UNBOUNDED = {
    "ray.get(x)": "ray.get()",
    "ray.wait([x])": "ray.wait()",
    "proc.wait()": "proc.wait()",
    "thread.join()": "thread.join()",
    "queue.get()": "queue.get()",
    "queue.get(block=True)": "queue.get()",
    "future.result()": "future.result()",
    "future.result(timeout=None)": "future.result()",
    "await ref.method.remote()": "await ref.method.remote()",
    "await waiting": "await waiting",
    "await self._engine.update_weights(info)": "await self._engine.update_weights()",
    "async for part in engine.generate(x): pass": "async for engine.generate()",
    "await asyncio.wait(tasks)": "asyncio.wait()",
    "await asyncio.to_thread(write, x)": "asyncio.to_thread()",
    "subprocess.run(command, check=True)": "subprocess.run()",
    "proc.communicate(text)": "proc.communicate()",
    "urllib.request.urlopen(url)": "urllib.request.urlopen()",
    "client = redis.Redis.from_url(url)": "redis.Redis.from_url()",
    "socket.create_connection((host, 1))": "socket.create_connection()",
    "fcntl.flock(file, fcntl.LOCK_EX)": "fcntl.flock()",
    "torch.distributed.barrier()": "torch.distributed.barrier()",
    "lock = threading.Lock()\nwith lock: pass": "with lock",
    "lock: asyncio.Lock\nasync def f(lock: asyncio.Lock):\n    async with lock: pass": "with lock",
    "with ThreadPoolExecutor(2) as pool: pass": "with ThreadPoolExecutor()",
    "while True: time.sleep(1)": "while: sleep",
    "await bounded(g(), 5, 'g: it')\nawait later": "await later",
}
BOUNDED = (
    "proc.wait(5)", "proc.wait(timeout=PATIENCE_S)", "thread.join(timeout=5)", "ray.get(x, timeout=3)",
    "queue.get(timeout=1.0)", "lock.acquire(timeout=2)", "future.result(timeout_s)", "pool.shutdown(wait=False)",
    "await bounded(ref.method.remote(), 5, 'part: it')", "await bounded(call, 5, 'part: it')",
    "await asyncio.wait_for(event.wait(), 5)", "await asyncio.wait(tasks, timeout=3)",
    "async with asyncio.timeout(5): await ref.method.remote()", "subprocess.run(command, timeout=9)",
    "socket.create_connection((host, 1), 2.0)", "fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)",
    "os.waitpid(pid, os.WNOHANG)", "while time.monotonic() < deadline: time.sleep(0.1)",
)  # fmt: skip
NO_WAITS = (
    "', '.join(parts)", "names.get(key)", "names.get(key, 0)", "await coroutine()", "await asyncio.sleep(1)",
    "os.path.join(a, b)", "await asyncio.gather(*tasks)", "wait_for(state)", "session.status",
    "for _ in range(3): time.sleep(1)", "while True: await asyncio.sleep(0)", "with lock_file.open() as file: pass",
)  # fmt: skip


@pytest.mark.parametrize("source", UNBOUNDED)
def test_wait_finder_finds_a_wait_without_a_deadline(source: str) -> None:
    assert [wait.call for wait in find_waits(source) if not wait.has_deadline] == [UNBOUNDED[source]]


@pytest.mark.parametrize("source", BOUNDED)
def test_wait_finder_sees_the_deadline(source: str) -> None:
    waits = find_waits(source)
    assert waits and all(wait.has_deadline for wait in waits), waits


@pytest.mark.parametrize("source", NO_WAITS)
def test_wait_finder_leaves_alone_what_is_no_wait(source: str) -> None:
    assert find_waits(source) == []


def test_wait_finder_says_where() -> None:
    source = "class A:\n    def f(self):\n        def g():\n            proc.wait()\n        return g\n"
    (wait,) = find_waits(source)
    assert (wait.function, wait.line) == ("A.f.g", 4)
    assert functions_of(source) == {"", "A", "A.f", "A.f.g"}


def test_wait_finder_gives_no_deadline_to_what_is_only_defined_in_a_bounded_block() -> None:
    source = "async def f():\n    async with asyncio.timeout(1):\n        async def g():\n            await later\n"
    assert [wait.has_deadline for wait in find_waits(source)] == [False]
