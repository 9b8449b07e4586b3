"""The published question sets and corpora: read from the files that others use, checked, stored.

Owns: `fetch_search` (the work of `t2po data get search --from PATH`) and its report. Called by the CLI and the tests.
Must not know: how stored questions are played. Reading the files is `official_rows`.

Training is NQ and HotpotQA, as published (Search-R1); the tests are the seven of `panels.SOURCES`. Where a data set has
both a test and a development file, the test file counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from envs.data_folder import DataError, data_folder, write_lines
from envs.search.corpus import write_corpus
from envs.search.factbook import PANELS
from envs.search.official_rows import Found, classify, corpus_rows, question_rows
from envs.search.panels import SOURCES, official_file
from envs.search.question import Question, question_row
from envs.search.retriever import FACTBOOK, open_index

TRAIN_SOURCES = ("nq", "hotpotqa")
PUBLISHED = {
    ("train", "nq"): 79168,
    ("train", "hotpotqa"): 90447,
    ("test", "nq"): 3610,
    ("test", "triviaqa"): 11313,
    ("test", "popqa"): 14267,
    ("test", "hotpotqa"): 7405,
    ("test", "2wikimultihopqa"): 12576,
    ("test", "musique"): 2417,
    ("test", "bamboogle"): 125,
}
_PROGRESS_EVERY = 50_000

Progress = Callable[[str], None]


@dataclass(slots=True)
class FetchReport:
    """What was stored: questions by split and data source, passages, what was left out and why."""

    source: Path
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    corpus: str = ""
    num_passages: int = 0
    files: dict[str, Path] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The report in words."""
        text = []
        for (split, source), published in PUBLISHED.items():
            found = self.counts[split, source]
            if found:
                whole = "complete" if found == published else f"{published} were published"
                text.append(f"official-{split}, {source}: {found} questions ({whole})")
        missing = [f"{split} {source}" for split, source in PUBLISHED if not self.counts[split, source]]
        if missing and self.counts:
            text.append(f"none in this source: {', '.join(missing)}")
        if self.corpus:
            text.append(f"corpus {self.corpus}: {self.num_passages} passages, with its index")
        return text + [f"left out: {count} x {reason}" for reason, count in sorted(self.skipped.items())]


def fetch_search(source: Path, folder: Path | None = None, progress: Progress = lambda text: None) -> FetchReport:
    """Read question files and a corpus from a folder or a single file, and store them in `folder` (default: T2PO_DATA).

    Questions: .parquet or .jsonl; a corpus: .jsonl; both also .gz or .xz. What the source does not have is left as it
    is. Raises DataError that names file and row for a damaged file, unknown columns, one id twice, a row without
    question or answer; nothing of the questions is stored then.
    """
    folder = folder or data_folder()
    report = FetchReport(source)
    question_files, corpus_files = _sort_files(source)
    if len(corpus_files) > 1:
        names = ", ".join(str(path) for path in corpus_files[:3])
        raise DataError(f"{source} holds {len(corpus_files)} corpora ({names}): name one of them")
    for split, questions in _questions(question_files, report, progress).items():
        report.files[split] = write_lines(official_file(split, folder), map(question_row, questions), preset=1)
    for path in corpus_files:
        _fetch_corpus(path, folder, report, progress)
    return report


def _sort_files(source: Path) -> tuple[list[Path], list[Path]]:
    """(question files, corpus files) below a source, in the order of their names."""
    if not source.exists():
        raise DataError(f"{source} does not exist: name the folder of the question files, or a file of them")
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    kinds = [(path, classify(path)) for path in files]
    if source.is_file() and not kinds[0][1]:
        raise DataError(f"{source}: name a .parquet or .jsonl file (also .gz or .xz), or a folder of them")
    questions = [path for path, kind in kinds if kind == "questions"]
    corpora = [path for path, kind in kinds if kind == "corpus"]
    if not questions and not corpora:
        raise DataError(f"{source} holds no .parquet or .jsonl file of questions or passages: name another folder")
    return questions, corpora


def _questions(files: Iterable[Path], report: FetchReport, progress: Progress) -> dict[str, list[Question]]:
    """Split -> its questions, sorted by id."""
    rows: list[Found] = []
    for path in files:
        progress(f"reading {path}")
        rows += question_rows(path)
    tested = {row.source for row in rows if row.split == "test"}
    kept: dict[str, dict[str, Found]] = {}
    for row in rows:
        split = "train" if row.split == "train" else "test"
        if row.source not in SOURCES:
            report.skipped[f"{row.split} of {row.source}: not one of the published sets"] += 1
        elif split == "train" and row.source not in TRAIN_SOURCES:
            report.skipped[f"train of {row.source}: only {' and '.join(TRAIN_SOURCES)} are trained on"] += 1
        elif row.split == "dev" and row.source in tested:
            report.skipped[f"dev of {row.source}: its test file counts"] += 1
        else:
            twin = kept.setdefault(split, {}).setdefault(row.question.id, row)
            if twin is not row:
                raise DataError(
                    f"{row.origin}: id {row.question.id} occurs a second time, first in {twin.origin}: remove one"
                )
    tests = {row.question.digest for row in kept.get("test", {}).values()}
    found: dict[str, list[Question]] = {}
    for split, chosen in sorted(kept.items()):
        for name in sorted(chosen):
            question = chosen[name].question
            if split == "train" and question.digest in tests:
                report.skipped["train question that a test asks as well"] += 1
                continue
            found.setdefault(split, []).append(question)
            report.counts[split, chosen[name].source] += 1
    return found


def _fetch_corpus(path: Path, folder: Path, report: FetchReport, progress: Progress) -> None:
    name = path.name.split(".", 1)[0]
    if name in (FACTBOOK, *PANELS) or name.startswith(f"{FACTBOOK}-"):
        raise DataError(f"{path}: a corpus cannot be called {name}: rename the file")
    progress(f"storing the passages of {path}")
    corpus = write_corpus(
        folder / "search" / name, corpus_rows(path), lambda count: progress(f"{count} passages stored")
    )
    progress(f"indexing {len(corpus)} passages")
    open_index(corpus, "bm25", _now_and_then(progress, len(corpus)))
    report.corpus, report.num_passages, report.files["corpus"] = name, len(corpus), corpus.folder


def _now_and_then(progress: Progress, total: int) -> Callable[[int], None]:
    last = 0

    def say(count: int) -> None:
        nonlocal last
        if count - last >= _PROGRESS_EVERY:
            last = count
            progress(f"{count} of {total} passages indexed")

    return say
