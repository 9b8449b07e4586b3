"""The inbox: a step's groups in order, and what the queue lost is made again, once, whatever lies on the stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from controller import inbox as module
from controller.deadline import DeadlineError
from controller.inbox import Inbox
from controller.replay_queue import QueueFullError
from controller.step_groups import StepGroups
from tests.fake_queue import FakeQueue
from tests.fakes import make_group


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PULL_WAIT_S", 0.005)


def on(queue: FakeQueue, work: Callable[[Inbox], Awaitable[None]]) -> None:
    async def run() -> None:
        inbox = Inbox(queue, max_pull=4)  # type: ignore[arg-type]
        try:
            await work(inbox)
        finally:
            inbox.close()

    asyncio.run(run())


class Surroundings:
    """The rest of the run: makes groups again that it is asked for, and counts the rounds."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self.asked: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    def damaged(self, names: list[str]) -> None:
        self.asked += names
        for name in names:
            index = int(name.removeprefix("run-g"))
            self.tasks.append(asyncio.create_task(self.inbox.push(make_group(index))))

    async def take(self, *indices: int, timeout_s: float = 5.0) -> list[int]:
        step = StepGroups(indices[0], len(indices), len(indices), lambda group: True, lambda: None)
        groups = await self.inbox.take(step, timeout_s, self.damaged, lambda: None)
        return [group.index for group in groups]


def test_inbox_gives_the_groups_of_a_step_in_order() -> None:
    queue = FakeQueue()

    async def work(inbox: Inbox) -> None:
        rest = Surroundings(inbox)
        for index in (2, 1, 3, 0):
            await inbox.push(make_group(index))
        assert await rest.take(0, 1) == [0, 1]
        assert (inbox.num_ready, inbox.num_trained) == (2, 2)
        assert await inbox.committed() == 2
        assert (await inbox.depth(), inbox.num_trained) == (2, 0)
        assert await rest.take(2, 3) == [2, 3]
        assert rest.asked == []

    on(queue, work)


@pytest.mark.parametrize("mishap", ["damage", "lose", "delete"])
def test_inbox_group_that_the_queue_lost_is_made_again_once(mishap: str) -> None:
    """Its entry was damaged, or the server came back without it, or somebody deleted it."""
    queue = FakeQueue()

    async def work(inbox: Inbox) -> None:
        rest = Surroundings(inbox)
        for index in (0, 1, 2):
            await inbox.push(make_group(index))
        getattr(queue, mishap)("run-g1")
        assert await rest.take(0, 1, 2) == [0, 1, 2]
        assert rest.asked == ["run-g1"]
        await inbox.committed()
        assert await inbox.depth() == 0

    on(queue, work)


def test_inbox_lost_group_is_noticed_while_others_keep_coming() -> None:
    queue = FakeQueue()

    async def work(inbox: Inbox) -> None:
        rest = Surroundings(inbox)
        await inbox.push(make_group(0))
        queue.lose("run-g0")
        await inbox.push(make_group(7))
        assert await rest.take(0) == [0]
        assert (rest.asked, inbox.num_ready) == (["run-g0"], 1)

    on(queue, work)


def test_inbox_asks_for_nothing_because_of_what_a_foreign_entry_says() -> None:
    """Ids that are no names, and the id of a group that is being made at this moment."""
    queue = FakeQueue()

    async def work(inbox: Inbox) -> None:
        rest = Surroundings(inbox)
        for name in ("hello", "x-gabc", "run-g1", ""):
            queue.add_foreign(name)
        await inbox.push(make_group(0))
        pushing = asyncio.create_task(asyncio.sleep(0.03))
        pushing.add_done_callback(lambda _: rest.tasks.append(asyncio.create_task(inbox.push(make_group(1)))))
        assert await rest.take(0, 1) == [0, 1]
        assert rest.asked == []
        assert await inbox.num_foreign() == 4

    on(queue, work)


def test_inbox_group_that_arrives_before_its_push_is_answered_is_not_missed() -> None:
    queue = FakeQueue()
    queue.confirm_delay_s = 0.03

    async def work(inbox: Inbox) -> None:
        rest = Surroundings(inbox)
        pushing = asyncio.create_task(inbox.push(make_group(0)))
        assert await rest.take(0) == [0]
        await pushing
        await inbox.committed()
        queue.confirm_delay_s = 0.0
        late = asyncio.create_task(asyncio.sleep(0.03))
        late.add_done_callback(lambda _: rest.tasks.append(asyncio.create_task(inbox.push(make_group(1)))))
        assert await rest.take(1) == [1]
        assert rest.asked == []

    on(queue, work)


def test_inbox_recover_leaves_damaged_groups_to_be_made_and_takes_them_then() -> None:
    """The whole entry is unreadable, or only its id: either way the group can be pushed again."""
    before = FakeQueue()
    for index in range(4, 9):
        before.push(make_group(index))
    before.pull(3, 0.0)
    before.damage("run-g5")
    before.damage("run-g7")
    before.entries[before.seen["run-g8"]] = ("run-g9", None)
    queue = before.reopened()

    async def work(inbox: Inbox) -> None:
        rest = Surroundings(inbox)
        assert await inbox.recover(5) == ({6}, 1)
        for index in (5, 7, 8):
            await inbox.push(make_group(index))
        assert inbox.repeated == 0
        assert await rest.take(5, 6, 7, 8) == [5, 6, 7, 8]
        assert rest.asked == [], "they are made already: whoever resumes knows what is missing"

    on(queue, work)


def test_inbox_recover_makes_groups_of_a_lost_checkpoint_again() -> None:
    before = FakeQueue()
    for index in (0, 1):
        before.push(make_group(index))
    before.acknowledge(entry.entry_id for entry in before.pull(2, 0.0))

    async def work(inbox: Inbox) -> None:
        assert await inbox.recover(1) == (set(), 0)
        await inbox.push(make_group(1))
        assert await Surroundings(inbox).take(1) == [1]

    on(before.reopened(), work)


def test_inbox_entries_that_come_back_after_their_acknowledgement_go_with_the_next_one() -> None:
    """A server that was restored from an older state delivers again what was trained and committed."""
    queue = FakeQueue()

    async def work(inbox: Inbox) -> None:
        rest = Surroundings(inbox)
        await inbox.push(make_group(0))
        assert await rest.take(0) == [0]
        await inbox.committed()
        queue.bring_back(make_group(0))
        await inbox.push(make_group(1))
        assert await rest.take(1) == [1]
        assert (inbox.num_ready, inbox.repeated) == (0, 1)
        await inbox.committed()
        assert await inbox.depth() == 0

    on(queue, work)


def test_inbox_group_that_never_comes_meets_the_deadline() -> None:
    async def work(inbox: Inbox) -> None:
        with pytest.raises(DeadlineError, match=r"groups \[3\]: not in the queue within 0\.05 s"):
            await Surroundings(inbox).take(3, timeout_s=0.05)

    on(FakeQueue(), work)


def test_inbox_queue_full_of_later_groups_still_takes_the_earlier_ones() -> None:
    """A damaged checkpoint sends the run back behind groups that fill the queue: without those before them no step
    could be made and no place would ever become free."""
    queue = FakeQueue(max_groups=3)
    for index in (4, 5, 6):
        queue.push(make_group(index))

    async def work(inbox: Inbox) -> None:
        assert await inbox.recover(2) == ({4, 5, 6}, 0)
        await inbox.push(make_group(2))
        await inbox.push(make_group(3))
        with pytest.raises(QueueFullError):
            await inbox.push(make_group(7))
        rest = Surroundings(inbox)
        assert await rest.take(2, 3) == [2, 3]

    on(queue, work)
