"""Our shop against the original's code, action by action, byte by byte.

Owns: the walks, the comparison, the report. Run as `python -m envs.webshop.differential CHECKOUT DATA`, with a
checkout of princeton-nlp/WebShop and its official files. Must not know: training, how the original is driven.

Both sides search with our index, so rankings are not compared here.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from envs.comparison import Progress, Record, run_comparison, speeds
from envs.webshop.catalogue import SEARCH_LIMIT, Catalogue
from envs.webshop.engine import Engine, ObservationMode
from envs.webshop.goals import OFFICIAL_SEED, Goal
from envs.webshop.nouns import add_nouns, load_tagger
from envs.webshop.official_files import find_files
from envs.webshop.original_reference import Reference, State
from envs.webshop.raw_records import read_records

NONSENSE_RATE = 0.05
_NONSENSE = (
    "", "\n", "buy now", "search", "search[", "search[]", "click[]", "click[buy now", "Search[shoes]", " search[shoes]",
    "search[a][b]", "search[a\nb]", "click[Buy Now]\n", "click[search]", "x[y]", "click[< prev] please", "search[ ]",
    "search[the of and]", "click[NEXT >]", "search[search_results]", "search[item_page]", 'search["red"]', "[[]]",
)  # fmt: skip


@dataclass(slots=True)
class Comparison:
    """What was compared and what differed. Seconds: of the steps, what can be clicked included on both sides."""

    goals: int = 0
    episodes: int = 0
    steps: int = 0
    nonsense: int = 0
    purchases: int = 0
    won: int = 0
    mismatches: list[dict[str, Any]] = field(default_factory=list)
    own_seconds: float = 0.0
    reference_seconds: float = 0.0

    def report(self) -> dict[str, Any]:
        return {**asdict(self), **speeds(self.steps, self.own_seconds, self.reference_seconds)}


@dataclass(frozen=True, slots=True)
class Pair:
    """Our shop and the original with the same records and goals."""

    catalogue: Catalogue
    reference: Reference
    human_goals: bool
    goal_seed: int
    show_attrs: bool

    def engine(self, mode: ObservationMode) -> Engine:
        table = self.catalogue.goal_table(self.human_goals, self.goal_seed)
        return Engine(self.catalogue, table.prices, mode, self.show_attrs)

    def goal(self, place: int) -> Goal:
        return self.catalogue.goal(self.human_goals, self.goal_seed, place)


def make_pair(
    checkout: Path,
    products: list[dict[str, Any]],
    attributes: dict[str, Any],
    human: dict[str, Any] | None = None,
    *,
    human_goals: bool = False,
    goal_seed: int = OFFICIAL_SEED,
    show_attrs: bool = False,
) -> Pair:
    """Both shops. Raises DataError when something that the original needs is missing."""
    catalogue = Catalogue.build(add_nouns(read_records(products, attributes, human), load_tagger()))

    def find(query: str, count: int) -> list[str]:
        return [catalogue.product(number).asin for number in catalogue.search(query)[: min(count, SEARCH_LIMIT)]]

    reference = Reference(
        checkout,
        products,
        attributes,
        find,
        human=human,
        human_goals=human_goals,
        goal_seed=goal_seed,
        show_attrs=show_attrs,
    )
    return Pair(catalogue, reference, human_goals, goal_seed, show_attrs)


def compare_goals(pair: Pair, outcome: Comparison) -> None:
    """The whole goal list, and every price."""
    table = pair.catalogue.goal_table(pair.human_goals, pair.goal_seed)
    outcome.goals = len(table)
    theirs = [_written_goal(goal) for goal in pair.reference.goals]
    ours = [_our_goal(pair.goal(place)) for place in range(len(table))]
    outcome.mismatches += [
        {"goal": place, "ours": mine, "theirs": other}
        for place, (mine, other) in enumerate(zip(ours, theirs, strict=len(ours) == len(theirs)))
        if mine != other
    ]
    if len(ours) != len(theirs):
        outcome.mismatches.append({"goals": [len(ours), len(theirs)]})
    prices = {pair.catalogue.product(number).asin: price for number, price in enumerate(table.prices.tolist())}
    if prices != pair.reference.prices:
        outcome.mismatches.append({"prices": "differ"})


def _written_goal(goal: dict[str, Any]) -> list[Any]:
    options = goal["goal_options"]
    chosen = [list(pair) for pair in options.items()] if isinstance(options, dict) else list(options)
    names = ("asin", "instruction_text", "attributes", "price_upper", "category", "query", "product_category")
    return [*(goal[name] for name in names), chosen]


def _our_goal(goal: Goal) -> list[Any]:
    chosen = [option if isinstance(option, str) else list(option) for option in goal.options]
    said = (goal.asin, goal.text, list(goal.attributes), goal.price_upper, goal.category, goal.query)
    return [*said, goal.product_category, chosen]


def compare_walks(
    pair: Pair,
    num_episodes: int,
    num_steps: int,
    seed: int,
    progress: Progress = lambda text: None,
    record: Record = lambda line: None,
) -> Comparison:
    """Walk through `num_episodes` goals, in the two observation modes by turns. `record` gets the original's goals and
    the products' nouns, then each walk as the original answered it."""
    outcome = Comparison()
    compare_goals(pair, outcome)
    products = [pair.catalogue.product(number) for number in range(len(pair.catalogue))]
    record({"goals": list(map(_written_goal, pair.reference.goals)), "nouns": {p.asin: p.nouns for p in products}})
    rng = random.Random(seed)
    words = sorted({word for product in products for word in product.searched_text.split()})
    modes: tuple[ObservationMode, ...] = ("text", "text_rich")
    for number in range(num_episodes):
        mode = modes[number % 2]
        place = rng.randrange(outcome.goals)
        goal = pair.goal(place)
        engine = pair.engine(mode)
        ours = _state(engine, engine.reset(goal), 0.0, False)
        theirs = pair.reference.reset(place, mode)
        walk: list[tuple[str, State]] = [("", theirs)]
        for _ in range(num_steps):
            if ours != theirs:
                break  # after the first difference the two are in different states
            action = _choose(engine, goal, words, rng)
            outcome.nonsense += action in _NONSENSE
            started = time.perf_counter()
            ours = _state(engine, *engine.step(action))
            middle = time.perf_counter()
            theirs = pair.reference.step(action)
            outcome.own_seconds += middle - started
            outcome.reference_seconds += time.perf_counter() - middle
            outcome.steps += 1
            outcome.purchases += theirs.done
            outcome.won += theirs.score == 1.0
            walk.append((action, theirs))
        outcome.episodes += 1
        if ours != theirs:
            actions = [action for action, _ in walk]
            outcome.mismatches.append({"goal": place, "mode": mode, "actions": actions, "ours": ours, "theirs": theirs})
        record({"place": place, "mode": mode, "steps": walk})
        progress(f"{number + 1}/{num_episodes} {outcome.steps} steps, {len(outcome.mismatches)} mismatches")
    return outcome


def _state(engine: Engine, observation: str, score: float, done: bool) -> State:
    breakdown = dict(engine.breakdown) if engine.breakdown is not None else None
    return State(observation, engine.clickables(), engine.has_search_bar, score, done, breakdown)


def _choose(engine: Engine, goal: Goal, words: list[str], rng: random.Random) -> str:
    """Mostly what leads to a purchase, so that all pages and rewards are met."""
    can = engine.clickables()
    if rng.random() < NONSENSE_RATE:
        return rng.choice(_NONSENSE)
    if not can or engine.has_search_bar or rng.random() < 0.05:
        query = [goal.query, " ".join(rng.choices(words, k=3)), " ".join(rng.choices(goal.text.split(" "), k=6))]
        return f"search[{rng.choice(query)}]"
    wanted = [goal.asin.lower(), *(option if isinstance(option, str) else option[1] for option in goal.options)]
    liked = [name for name in can if name in wanted]
    if liked and rng.random() < 0.5:
        can = liked
    elif rng.random() < 0.2 and "buy now" in can:
        can = ["buy now"]
    name = rng.choice(can)
    return f"click[{name.upper() if rng.random() < 0.05 else name}]"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m envs.webshop.differential", description=__doc__)
    parser.add_argument("checkout", type=Path, help="checkout of princeton-nlp/WebShop")
    parser.add_argument("data", type=Path, help="official files, as for `t2po data get webshop --from`")
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--steps", type=int, default=20, help="actions an episode")
    parser.add_argument("--seed", type=int, default=0, help="of the walks")
    parser.add_argument("--goal-seed", type=int, default=OFFICIAL_SEED)
    parser.add_argument("--human-goals", action="store_true")
    parser.add_argument("--show-attrs", action="store_true")
    parser.add_argument("--record", type=Path, help="write the original's answers to this .jsonl.xz (a test fixture)")
    chosen = parser.parse_args(arguments)

    def walk_all(progress: Progress, record: Record) -> Comparison:
        files = find_files(chosen.data)
        pair = make_pair(
            chosen.checkout,
            list(files.read_products()),
            dict(files.read_attributes()),
            files.read_human(),
            human_goals=chosen.human_goals,
            goal_seed=chosen.goal_seed,
            show_attrs=chosen.show_attrs,
        )
        return compare_walks(pair, chosen.episodes, chosen.steps, chosen.seed, progress, record)

    return run_comparison(walk_all, chosen.record)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
