"""The original WebShop behind a few calls: the reference that our shop is compared with.

Owns: loading a checkout of princeton-nlp/WebShop and driving it. Called by `differential` and the benchmark only. Must
not know: our engine.

Needs a checkout, and flask, beautifulsoup4, thefuzz, tqdm and spaCy with its small English model; nothing else of the
project imports them. What the original imports beyond that and does not need for its text pages is left empty; its
search engine, which needs Java, is replaced by a function.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import io
import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from envs.data_folder import DataError
from envs.webshop.goals import OFFICIAL_SEED
from envs.webshop.nouns import MODELS

_NEEDED = ("flask", "bs4", "thefuzz", "tqdm", "spacy")
_EMPTY: dict[str, dict[str, Any]] = {
    "gym": {"Env": object},
    "torch": {},
    "cleantext": {},
    "rank_bm25": {"BM25Okapi": None},
    "pyserini": {},
    "pyserini.search": {},
    "pyserini.search.lucene": {"LuceneSearcher": None},
}
Find = Callable[[str, int], list[str]]
"""A query and a number -> at most so many asins, best first."""


class State(NamedTuple):
    """What the original shows: its observation, what can be clicked, the last score, done, the score's parts."""

    observation: str
    clickables: list[str]
    has_search_bar: bool
    score: float
    done: bool
    breakdown: dict[str, Any] | None


class _Hit(NamedTuple):
    docid: str


class _Document(NamedTuple):
    asin: str

    def raw(self) -> str:
        return json.dumps({"id": self.asin})


class _Searcher:
    def __init__(self, find: Find) -> None:
        self._find = find

    def search(self, query: str, k: int) -> list[_Hit]:
        return [_Hit(asin) for asin in self._find(query, k)]

    def doc(self, asin: str) -> _Document:
        return _Document(asin)


class _OneSeed:
    """The module `random`, with one seed for all: the original's is written into its code."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def seed(self, _: int) -> None:
        random.seed(self._seed)

    def __getattr__(self, name: str) -> Any:
        return getattr(random, name)


class Reference:
    """The original on these records. `goals` and `prices` (asin -> dollars) are its own."""

    def __init__(
        self,
        checkout: Path,
        products: list[dict[str, Any]],
        attributes: dict[str, Any],
        find: Find,
        *,
        human: dict[str, Any] | None = None,
        human_goals: bool = False,
        goal_seed: int = OFFICIAL_SEED,
        show_attrs: bool = False,
    ) -> None:
        """Raises DataError when the checkout or a package is missing."""
        self._module = _load(checkout)
        with tempfile.TemporaryDirectory() as folder, _quiet():
            # pictures play no part in text, but the original will not load a product without
            products = [{**record, "images": record.get("images") or [""]} for record in products]
            engine = importlib.import_module("web_agent_site.engine.engine")
            paths = {}
            for name, records in (("products", products), ("attributes", attributes), ("human", human or {})):
                paths[name] = Path(folder) / f"{name}.json"
                paths[name].write_text(json.dumps(records))
            vars(engine).update(DEFAULT_ATTR_PATH=str(paths["attributes"]), HUMAN_ATTR_PATH=str(paths["human"]))
            vars(self._module).update(random=_OneSeed(goal_seed), init_search_engine=lambda **_: _Searcher(find))
            random.seed(goal_seed)
            self._server = self._module.SimServer(
                "http://127.0.0.1:3000", str(paths["products"]), human_goals=human_goals, show_attrs=show_attrs
            )
        self.goals: list[dict[str, Any]] = self._server.goals
        self.prices: dict[str, float] = self._server.product_prices

    def reset(self, place: int, observation_mode: str) -> State:
        """Start goal number `place` of the shuffled list."""
        self._server.user_sessions.clear()
        with _quiet():
            self._env = self._module.WebAgentTextEnv(observation_mode=observation_mode, server=self._server)
            self._server.user_sessions.clear()
            observation, _ = self._env.reset(session=place)
        return self._state(observation, 0.0, False)

    def step(self, action: str) -> State:
        with _quiet():
            observation, score, done, _ = self._env.step(action)
        return self._state(observation, float(score), done)

    def _state(self, observation: str, score: float, done: bool) -> State:
        offered = self._env.get_available_actions()
        session = self._server.user_sessions[self._env.session]
        breakdown = copy.deepcopy(session["verbose_info"]) if done else None
        return State(observation, offered["clickables"], offered["has_search_bar"], score, done, breakdown)


def _load(checkout: Path) -> ModuleType:
    """The original's module with its text environment, imported once a process."""
    name = "web_agent_site.envs.web_agent_text_env"
    if name in sys.modules:
        return sys.modules[name]
    missing = [needed for needed in _NEEDED if importlib.util.find_spec(needed) is None]
    if missing or not (checkout / "web_agent_site").is_dir():
        raise DataError(
            f"{checkout}: needs a checkout of princeton-nlp/WebShop, and the packages {', '.join(missing or _NEEDED)}"
        )
    for needless, content in _EMPTY.items():
        with contextlib.suppress(ImportError, ValueError):
            if importlib.util.find_spec(needless) is not None:
                continue
        module = ModuleType(needless)
        vars(module).update(content)
        sys.modules[needless] = module
    # its package imports a browser-driven environment too: an empty package takes its place
    package = ModuleType("web_agent_site.envs")
    package.__path__ = [str(checkout / "web_agent_site" / "envs")]
    sys.modules[package.__name__] = package
    sys.path.insert(0, str(checkout))
    spacy: Any = importlib.import_module("spacy")
    load = spacy.load
    model = next((model for model in MODELS if importlib.util.find_spec(model)), MODELS[0])
    try:
        spacy.load = lambda _: importlib.import_module(model).load()
        return importlib.import_module(name)
    finally:
        spacy.load = load


@contextlib.contextmanager
def _quiet() -> Any:
    """The original prints as it goes."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
