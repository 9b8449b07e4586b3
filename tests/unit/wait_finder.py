"""Where source code waits for something outside itself, and whether the wait has a deadline.

Owns: `find_waits`, which reads source and runs nothing. Called by the tests of docs/waits.md. Must not know: which
waits are allowed, what they wait for.

A wait is a call of a function that is known to wait: in Ray, asyncio, threads, processes, sockets, clients, file locks,
torch.distributed. It has a deadline when it is given one (`timeout=...`, a number as in `wait(5)`), when it must not
wait (LOCK_NB, WNOHANG), or when it stands in `bounded(...)`, `wait_for(...)`, or a block under
`asyncio.timeout(...)`. A loop that sleeps has one when it reads a clock or a `deadline`. `gather` and TaskGroup are no
waits of their own, nor is awaiting a coroutine function of ours: what waits in them is found where it is written.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

TIMEOUTS = ("timeout", "timeout_s", "timeout_seconds", "socket_timeout", "shutdown_timeout")
BOUNDING = ("bounded", "asyncio.wait_for")
BOUNDING_BLOCKS = ("asyncio.timeout", "asyncio.timeout_at")
"""Calls that give what stands in them, and blocks that give what stands in their lines, a deadline."""
IMMEDIATE = ("LOCK_NB", "WNOHANG", "LOCK_UN")

TIMED = ("wait", "join", "get", "acquire", "result")
"""Methods that wait when called with nothing, and wait with a deadline in `wait(5)` and `wait(timeout=5)`; the likes of
`", ".join(parts)` and `names.get(key)` are no waits."""
BARE = ("accept", "recv", "recv_bytes", "readline", "getresponse", "serve_forever", "shutdown")
"""Methods that wait when called without a place in their arguments, and cannot be given a deadline there."""

FUNCTIONS = (
    "ray.get", "ray.wait", "ray.init", "ray.shutdown", "ray.nodes", "ray.cluster_resources", "ray.put", "asyncio.wait",
    "asyncio.to_thread", "subprocess.run", "subprocess.call", "subprocess.check_call", "subprocess.check_output",
    "os.system", "os.wait", "os.waitpid", "urllib.request.urlopen", "urlopen",
    "socket.create_connection", "http.client.HTTPConnection", "fcntl.flock", "fcntl.lockf", "redis.Redis",
    "redis.Redis.from_url", "aiohttp.ClientSession", "ClientSession", "select.select", "psutil.wait_procs", "wait",
    "concurrent.futures.wait", "as_completed", "input", "os.read",
)  # fmt: skip
"""Waits by their dotted name, given or not given arguments."""

METHODS = (
    "run_in_executor", "communicate", "init_process_group", "init_distributed", "TCPStore", "barrier", "all_reduce",
    "all_gather", "all_gather_object", "broadcast", "broadcast_object_list", "reduce_scatter", "trainer_init",
    "send_weights", "request",
)  # fmt: skip
"""Waits by the last part of their name, whatever they are called on and given."""
ENGINES = ("engine", "_engine")
"""What vLLM's engine is called here: an awaited call of it is a wait."""

LOCKS = ("Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore")
POOLS = ("ThreadPoolExecutor", "ProcessPoolExecutor", "Pool")
DEADLINE_WORDS = ("deadline", "monotonic", "perf_counter", "until")
POSITIONS = {"asyncio.wait_for": 1, "socket.create_connection": 1, "select.select": 3, "psutil.wait_procs": 1}
"""Functions whose deadline may be given without its name: where it stands."""


@dataclass(frozen=True, slots=True)
class FoundWait:
    """One wait: the class and function that it is in ("" at the top of a module), the call in short, its line."""

    function: str
    call: str
    line: int
    has_deadline: bool


def find_waits(source: str) -> list[FoundWait]:
    """The waits of one module, in the order of its lines."""
    tree = ast.parse(source)
    found = _Waits(_lock_names(tree))
    found.visit(tree)
    return sorted(found.waits, key=lambda wait: (wait.line, wait.call))


def functions_of(source: str) -> set[str]:
    """Every function of a module, as "name" or "Class.name"; "" for its top."""
    found = {""}

    def collect(node: ast.AST, path: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = f"{path}.{child.name}" if path else child.name
                found.add(inner)
                collect(child, inner)
            else:
                collect(child, path)

    collect(ast.parse(source), "")
    return found


class _Waits(ast.NodeVisitor):
    def __init__(self, locks: set[str]) -> None:
        self.waits: list[FoundWait] = []
        self._locks = locks
        self._path: list[str] = []
        self._bounds = 0

    # ---- where it stands ----

    def _named(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        self._path.append(node.name)
        outer, self._bounds = self._bounds, 0  # what is defined in a bounded block is called elsewhere
        self.generic_visit(node)
        self._bounds = outer
        self._path.pop()

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _named

    def _note(self, node: ast.expr | ast.stmt, call: str, has_deadline: bool = False) -> None:
        self.waits.append(FoundWait(".".join(self._path), call, node.lineno, has_deadline or self._bounds > 0))

    # ---- what waits ----

    def visit_Call(self, node: ast.Call) -> None:
        name, last = _names_of(node)
        if name in BOUNDING:
            self._bounds += 1
            if _is_remote(node.args[0]):
                self._note(node, _short(node.args[0]))
            elif not isinstance(node.args[0], ast.Call):  # it was made before
                self._note(node, f"{last}({ast.unparse(node.args[0])})")
            elif not self._waits(node.args[0], *_names_of(node.args[0])):
                self._note(node, f"{last}({_short(node.args[0])})")
            self.generic_visit(node)
            self._bounds -= 1
            return
        if self._waits(node, name, last):
            self._note(node, _short(node), _has_deadline(node, name))
        self.generic_visit(node)

    def _waits(self, node: ast.Call, name: str, last: str) -> bool:
        if name in FUNCTIONS or last in METHODS or (last == "open" and "opener" in name.lower()):
            return True
        if not isinstance(node.func, ast.Attribute):
            return False
        if last in TIMED:
            named = any(word.arg in (*TIMEOUTS, "block", "blocking") for word in node.keywords)
            number = len(node.args) == 1 and _is_duration(node.args[0])
            return named or number or not (node.args or node.keywords)
        return last in BARE and not node.args

    def visit_Await(self, node: ast.Await) -> None:
        if not isinstance(node.value, ast.Call) or _is_remote(node.value) or _is_of_engine(node.value):
            self._note(node, f"await {_short(node.value)}")
        self.generic_visit(node)

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self._note(node, f"async for {_short(node.iter)}")
        self.generic_visit(node)

    def _with(self, node: ast.With | ast.AsyncWith) -> None:
        bounds = 0
        for item in node.items:
            inner = item.context_expr
            name = _dotted(inner.func if isinstance(inner, ast.Call) else inner)
            last = name.rsplit(".", 1)[-1]
            if name in BOUNDING_BLOCKS:
                bounds += 1
            elif last in self._locks or last in POOLS:
                self._note(node, f"with {_short(inner)}")
            else:
                self.visit(inner)
        self._bounds += bounds
        for line in node.body:
            self.visit(line)
        self._bounds -= bounds

    visit_With = visit_AsyncWith = _with

    def visit_While(self, node: ast.While) -> None:
        body = ast.Module(body=[*node.body, *node.orelse], type_ignores=[])
        for call in _calls_here(body):
            if _dotted(call.func).rsplit(".", 1)[-1] == "sleep" and not _is_zero(call):
                words = {part.lower() for part in _names(node)}
                self._note(node, "while: sleep", any(known in word for word in words for known in DEADLINE_WORDS))
                break
        self.generic_visit(node)


def _has_deadline(node: ast.Call, name: str) -> bool:
    for word in node.keywords:
        if word.arg in TIMEOUTS and not _is_none(word.value):
            return True
        if word.arg in ("block", "blocking", "wait") and isinstance(word.value, ast.Constant) and not word.value.value:
            return True
    if any(mark in IMMEDIATE for one in node.args for mark in _names(one)):
        return True
    place = POSITIONS.get(name)
    if place is not None:
        return len(node.args) > place
    return name.rsplit(".", 1)[-1] in TIMED and name not in FUNCTIONS and len(node.args) == 1


def _lock_names(tree: ast.AST) -> set[str]:
    """Names and attributes that hold a lock, and functions that return one."""
    found = set()
    for node in ast.walk(tree):
        made = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if isinstance(made, ast.Call) and _is_lock(made.func):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]  # type: ignore[attr-defined]
            found.update(_dotted(target).rsplit(".", 1)[-1] for target in targets)
        if isinstance(node, ast.FunctionDef) and node.returns is not None and _is_lock(node.returns):
            found.add(node.name)
        if isinstance(node, ast.arg) and node.annotation is not None and _is_lock(node.annotation):
            found.add(node.arg)
    return found


def _is_lock(name: ast.AST) -> bool:
    return _dotted(name).rsplit(".", 1)[-1] in LOCKS


def _calls_here(node: ast.AST) -> Iterator[ast.Call]:
    """Calls in `node`, but not in the functions and loops that are within it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda | ast.While | ast.For):
            continue
        if isinstance(child, ast.Call):
            yield child
        yield from _calls_here(child)


def _names(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            yield part.id
        elif isinstance(part, ast.Attribute):
            yield part.attr


def _dotted(node: ast.AST) -> str:
    """`a.b.c` as text; of a call in the middle only what follows it."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    if isinstance(node, ast.Call):
        return _dotted(node.func)
    return ""


def _short(node: ast.expr) -> str:
    """A call without its arguments; anything else as it is written."""
    return f"{_dotted(node.func).lstrip('.')}()" if isinstance(node, ast.Call) else ast.unparse(node)


def _is_remote(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "remote"


def _is_of_engine(node: ast.Call) -> bool:
    return any(part in ENGINES for part in _dotted(node.func).split(".")[:-1])


def _names_of(node: ast.Call) -> tuple[str, str]:
    name = _dotted(node.func)
    return name, name.rsplit(".", 1)[-1]


def _is_duration(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float) and not isinstance(node.value, bool)
    return any(word.endswith(("_s", "_S")) or "timeout" in word.lower() for word in _names(node))


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_zero(node: ast.Call) -> bool:
    return bool(node.args) and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
