"""TextWorld's PDDL engine behind three calls: the reference that our engine is compared with.

Owns: loading a game into TextWorld and driving it. Called by `differential` only. Must not know: our engine.

TextWorld and alfworld (domain, grammar, names) are an optional extra; nothing else of the project imports them.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from copy import deepcopy
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

from envs.data_folder import DataError

State = tuple[str, list[str], bool]
"""Observation, admissible commands as TextWorld sorts them, done."""
MISSING = "TextWorld is not installed: pip install 't2po[textworld]' (or deploy/requirements/textworld.txt) and repeat"


class Reference:
    """TextWorld's PDDL engine. One instance for all games: each holds a 34 MB library until the process ends."""

    def __init__(self) -> None:
        """Raises DataError when TextWorld is not installed."""
        if any(importlib.util.find_spec(name) is None for name in ("textworld", "fast_downward", "alfworld")):
            raise DataError(MISSING)
        import textworld
        from alfworld.agents.utils.misc import Demangler
        from textworld.envs.pddl import PddlEnv

        found = importlib.util.find_spec("alfworld")
        data = Path(found.origin if found and found.origin else "").parent / "data"
        self._domain = (data / "alfred.pddl").read_text()
        self._grammar = (data / "alfred.twl2").read_text()
        self._demangler = Demangler
        _translate_once()
        self._parsers = _remember_parsers()
        self._env = PddlEnv(textworld.EnvInfos(won=True, admissible_commands=True))

    def time_it(self, timed: bool) -> None:
        """Whether the next games are played by TextWorld as it is, or with its parsers' answers remembered."""
        for parser in self._parsers:
            parser.remembering = not timed

    def reset(self, problem: str, task: str) -> State:
        arguments = list(sys.argv)  # its translator overwrites them
        try:
            self._env.load(
                {
                    "pddl_domain": self._domain,
                    "grammar": self._grammar.replace("UNKNOWN GOAL", task),
                    "pddl_problem": problem,
                }
            )
            names = self._demangler(game_infos=self._env._entity_infos)
            for entity in self._env._entity_infos.values():
                entity.name = names.demangle_alfred_name(entity.id)
            return self._state(self._env.reset())
        finally:
            sys.argv = arguments

    def step(self, command: str) -> State:
        state, _, _ = self._env.step(command)
        return self._state(state)

    @staticmethod
    def _state(state: Any) -> State:
        return state.feedback, list(state.admissible_commands), bool(state.won)


def _translate_once() -> None:
    """Let TextWorld translate each problem once. It does so four times a game: for `load` and for `reset`, and each
    time once more for its planner, which is never asked here. Nothing that is compared depends on it."""
    import fast_downward

    translate = getattr(fast_downward.pddl2sas, "__wrapped__", fast_downward.pddl2sas)

    @lru_cache(maxsize=1)
    def once(domain: str, problem: str) -> Any:
        return translate(domain, problem, verbose=False)

    @wraps(translate)
    def pddl2sas(domain: str, problem: str, verbose: bool = False, optimize: bool = False) -> Any:
        return once(domain, problem)

    fast_downward.pddl2sas = pddl2sas


class _Remembered:
    """A parser of TextWorld's whose answers are kept: it parses the same few phrases of the grammar at every step,
    three quarters of its time. An answer is copied before it is handed out, because TextWorld writes into it."""

    def __init__(self, parse: Callable[..., Any]) -> None:
        self.parse = getattr(parse, "parse", parse)
        self.remembering = True
        self.answers: dict[tuple[str, str], Any] = {}

    def __call__(self, text: str, rule_name: str = "", **options: Any) -> Any:
        if not self.remembering:
            return self.parse(text, rule_name=rule_name, **options)
        key = (text, rule_name)
        if key not in self.answers:
            self.answers[key] = self.parse(text, rule_name=rule_name, **options)
        return deepcopy(self.answers[key])


def _remember_parsers() -> list[_Remembered]:
    """Put `_Remembered` in front of the parser of phrases and the parser of conditions. Both are pure functions."""
    import textworld.logic
    from textworld.envs.pddl import textgen

    phrases = textgen._parse_and_convert = _Remembered(textgen._parse_and_convert)
    conditions = textworld.logic._parse_and_convert = _Remembered(textworld.logic._parse_and_convert)
    return [phrases, conditions]
