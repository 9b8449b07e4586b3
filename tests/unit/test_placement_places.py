"""Which actors find a place, what is said when some do not, and which raylet the next one is sent to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.placement import PlacementError, asked_by, check_places, emptiest, gpus_of_role, num_places

ENV, INFERENCE = {"t2po_env": 2.0}, {"t2po_inference": 2.0, "GPU": 1.0}


def test_actors_ask_for_a_slot_of_their_role_where_there_are_any() -> None:
    assert asked_by("env", [ENV, INFERENCE]) == {"t2po_env": 1.0}
    assert asked_by("inference", [ENV, INFERENCE], 1) == {"t2po_inference": 1.0, "GPU": 1.0}
    assert asked_by("env", [{"CPU": 8.0}]) == {}
    assert num_places({}, []) is None


def test_gpus_count_only_on_raylets_of_the_role() -> None:
    nodes = [ENV, INFERENCE, {"t2po_learner": 2.0, "GPU": 4.0}]
    assert (gpus_of_role("inference", nodes), gpus_of_role("learner", nodes), gpus_of_role("env", nodes)) == (1, 4, 0)
    assert gpus_of_role("learner", [{"GPU": 2.0}, {"GPU": 1.0}]) == 3


def test_everything_that_does_not_fit_is_said_at_once_with_value_place_and_remedy() -> None:
    needs = [("env", 5, {"t2po_env": 1.0}), ("head", 1, {"t2po_head": 1.0}), ("inference", 1, {"t2po_inference": 1.0})]
    with pytest.raises(PlacementError) as found:
        check_places(needs, [ENV, ENV, INFERENCE], "the cluster here:1")
    first, second = str(found.value).splitlines()
    assert first.startswith("5 env actors: the cluster here:1 has 4 free places for them (each takes 1 t2po_env)")
    assert "rollout.num_env_actors" in first
    assert "t2po cluster scale envs=N" in first
    assert second.startswith("1 head actor: the cluster here:1 has 0 free places")
    assert "lower rollout.num_routers" in second


def test_a_gpu_is_given_out_once() -> None:
    node = {"t2po_inference": 2.0, "t2po_learner": 2.0, "GPU": 1.0}
    needs = [("inference", 1, {"t2po_inference": 1.0, "GPU": 1.0}), ("learner", 1, {"t2po_learner": 1.0, "GPU": 1.0})]
    with pytest.raises(PlacementError, match="^1 learner actor: .* has 0 free places"):
        check_places(needs, [node])
    check_places(needs, [node, node])


@given(st.lists(st.integers(0, 5), max_size=6), st.integers(0, 40))
def test_check_agrees_with_counting_slots(slots: list[int], count: int) -> None:
    free = [{"t2po_env": float(number)} for number in slots]
    needs = [("env", count, {"t2po_env": 1.0})]
    if count <= sum(slots):
        check_places(needs, free)
    else:
        with pytest.raises(PlacementError):
            check_places(needs, free)


def test_actors_are_sent_to_the_emptiest_raylet_of_their_role() -> None:
    nodes = {"a": ENV, "b": ENV, "c": INFERENCE}
    sent: dict[str, int] = {}
    course = []
    for _ in range(5):
        node = emptiest({"t2po_env": 1.0}, nodes, sent)
        course.append(node)
        sent[node] = sent.get(node, 0) + 1
    assert course == ["a", "b", "a", "b", ""]
