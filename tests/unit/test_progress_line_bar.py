"""The progress of a command: a bar that is written over in a terminal, few lines elsewhere."""

from __future__ import annotations

import io

from controller.progress_line import ProgressLine, bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_counts_become_a_bar() -> None:
    assert bar("search index: 0 of 100 products") == f"[{'.' * 30}] search index: 0 of 100 products"
    assert bar("search index: 50 of 100 products").startswith(f"[{'#' * 15}{'.' * 15}] ")
    assert bar("x: 200 of 100").startswith(f"[{'#' * 30}] ")
    assert bar("reading") == "reading" and bar("0 of 0") == "0 of 0"


def test_a_terminal_has_one_line() -> None:
    line = ProgressLine(stream := Terminal())
    for count in (1, 2):
        line(f"nouns: {count} of 2")
    line.close()
    assert "\n" not in stream.getvalue() and stream.getvalue().endswith("\r\x1b[2K")


def test_a_file_has_one_line_a_part_and_a_moment() -> None:
    line = ProgressLine(stream := io.StringIO())
    for count in range(100):
        line(f"nouns: {count} of 100")
    line("index: 0 of 3")
    line.close()
    assert stream.getvalue() == "nouns: 0 of 100\nindex: 0 of 3\n"


def test_nothing_said_is_nothing_written() -> None:
    line = ProgressLine(stream := Terminal())
    line.close()
    assert stream.getvalue() == ""
