"""JSON lines: every line is whole or not there, whatever ended the process that wrote it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.durable_files import JsonLines, RunFolderError, read_json_lines
from tests.unit.test_run_folder_layout import small_disk


def test_append_and_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = JsonLines(path)
    assert list(read_json_lines(path)) == [] and list(read_json_lines(tmp_path / "none.jsonl")) == []
    lines.append({"step": np.int64(1), "loss": np.float32(0.5), "kl": float("nan"), "text": "é\n", "ids": np.arange(2)})
    lines.append_all([{"step": 2}, {"step": 3}], sync=True)
    lines.close()
    lines.close()
    found = list(read_json_lines(path))
    assert found == [{"step": 1, "loss": 0.5, "kl": None, "text": "é\n", "ids": [0, 1]}, {"step": 2}, {"step": 3}]
    assert [json.loads(line) for line in path.read_text().splitlines()] == found


@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers(-(2**53), 2**53), max_size=3), max_size=4), st.data())
def test_every_cut_leaves_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.jsonl"
    lines = JsonLines(path)
    if records:
        lines.append_all(records)
    lines.close()
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    kept = whole[:cut].count(b"\n")
    assert list(read_json_lines(path)) == records[:kept]  # a reader beside the writer sees the same
    lines = JsonLines(path)
    assert lines.num_cut == cut - len(b"".join(whole.splitlines(keepends=True)[:kept]))
    lines.append({"more": 1})
    lines.close()
    assert list(read_json_lines(path)) == [*records[:kept], {"more": 1}]


@pytest.mark.parametrize(
    "junk", [b"\x00" * 5000, b"\x00\x00\n\x00\n", b'{"half": ', b'{"half": \n', b"[1]\n", b"x" * 200_000]
)
def test_junk_at_the_end_is_cut(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"step":1}\n' + junk)
    lines = JsonLines(path)
    assert lines.num_cut == len(junk)
    lines.close()
    assert path.read_bytes() == b'{"step":1}\n'


def test_file_of_junk_alone_and_long_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\x00" * 100)
    JsonLines(path).close()
    assert path.read_bytes() == b""
    lines = JsonLines(path)
    lines.append({"text": "x" * 300_000})
    lines.append({"text": "y" * 200_000})
    lines.close()
    assert JsonLines(path).num_cut == 0


def test_junk_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"step":1}\n{"st\n{"step":3}\n')
    with pytest.raises(RunFolderError, match=r"a\.jsonl, line 2: not JSON .*delete the line"):
        list(read_json_lines(path))


def test_kill_9_while_writing(tmp_path: Path) -> None:
    script = (
        "import sys, itertools; from pathlib import Path; from controller.durable_files import JsonLines\n"
        "lines = JsonLines(Path(sys.argv[1]))\n"
        "for n in itertools.count():\n"
        "    lines.append({'n': n, 'text': 'x' * 5000})\n"
        "    print(n, flush=True)\n"
    )
    path = tmp_path / "a.jsonl"
    for _ in range(3):
        path.unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(200):
            last = writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        last = (last + writer.stdout.read()).split()[-1]
        writer.wait(timeout=10)
        writer.stdout.close()
        JsonLines(path).close()
        numbers = [record["n"] for record in read_json_lines(path)]
        assert numbers == list(range(len(numbers))) and len(numbers) >= int(last) + 1


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = JsonLines(path)

    def write(name: int) -> None:
        for n in range(100):
            lines.append({"name": name, "n": n, "x": "x" * 500})

    threads = [threading.Thread(target=write, args=[name]) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = [(record["name"], record["n"]) for record in read_json_lines(path)]
    assert sorted(found) == [(name, n) for name in range(4) for n in range(100)]


def test_disk_becomes_full_in_the_middle_of_a_line(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=64k") as disk:
        path = disk / "a.jsonl"
        lines = JsonLines(path)
        count = 0
        with pytest.raises(RunFolderError, match=r"a\.jsonl: cannot append: No space left on device; free space"):
            while True:
                lines.append({"n": count, "text": "x" * 3001})
                count += 1
        assert count > 10
        assert [record["n"] for record in read_json_lines(path)] == list(range(count))
        assert path.read_bytes().endswith(b"\n")
        os.truncate(path, path.read_bytes().index(b"\n") + 1)  # space is there again: writing goes on
        lines.append({"n": 1})
        assert [record["n"] for record in read_json_lines(path)] == [0, 1]
        lines.close()


def test_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"cannot open for appending: No such file or directory"):
        JsonLines(tmp_path / "none" / "a.jsonl")
    with pytest.raises(RunFolderError, match="Is a directory"):
        JsonLines(tmp_path)
    lines = JsonLines(tmp_path / "a.jsonl")
    with pytest.raises(TypeError):
        lines.append({"x": object()})
    lines.close()
    assert (tmp_path / "a.jsonl").read_bytes() == b""
