"""Large JSON files, one member at a time: the product file of a million records never lies in memory as a whole.

Owns: `read_members`. Called by `official_files`. Must not know: what the members mean.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

from envs.data_folder import DataError

_CHUNK = 1 << 22
_LONGEST_MEMBER = 1 << 26
_WHITE = " \n\t\r"
_BRACKETS = {"[": "]", "{": "}"}


def open_text(path: Path) -> IO[str]:
    """The text of a plain or an .xz file."""
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def read_members(path: Path, opening: Literal["[", "{"]) -> Iterator[tuple[str, Any]]:
    """The members of the one list or object that the file holds: (key, value), the key "" in a list.

    Raises DataError that names the file and the member for a file that is damaged, cut short, or holds something else.
    """
    number = 0
    try:
        with open_text(path) as stream:
            scanner = _Scanner(stream)
            found = scanner.sign()
            if found != opening:
                kind = {"[": "a list", "{": "an object"}
                raise DataError(
                    f"{path}: holds {kind.get(found, 'no JSON list or object')}, {kind[opening]} is expected: "
                    "the files are mixed up or damaged"
                )
            if scanner.peek() == _BRACKETS[opening]:
                scanner.sign()
            else:
                while True:
                    number += 1
                    yield scanner.member() if opening == "{" else ("", scanner.value())
                    sign = scanner.sign()
                    if sign == _BRACKETS[opening]:
                        break
                    if sign != ",":
                        raise _Damaged(f"{sign or 'the end of the file'} where a comma belongs")
            if scanner.peek():
                raise _Damaged("more text behind its end")
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError, RecursionError, _Damaged) as error:
        what = "cut short" if isinstance(error, EOFError) else str(error)
        raise DataError(f"{path}, record {max(number, 1)}: {what}: the file is damaged, fetch it again") from error


class _Damaged(Exception):
    """Text that is no JSON; the message says what is wrong."""


class _Scanner:
    """A window over a stream of JSON text."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._text = ""
        self._at = 0
        self._decoder = json.JSONDecoder()

    def peek(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _WHITE:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def sign(self) -> str:
        """`peek`, and step over it."""
        found = self.peek()
        self._at += len(found)
        return found

    def member(self) -> tuple[str, Any]:
        """A key, a colon, a value."""
        key = self.value()
        if not isinstance(key, str) or self.sign() != ":":
            raise _Damaged("an object without a key")
        return key, self.value()

    def value(self) -> Any:
        """The next value; more text is read for as long as it is not whole."""
        if not self.peek():
            raise _Damaged("cut short")
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > _LONGEST_MEMBER:
                    raise _Damaged(f"no JSON ({error.msg})") from error
                if not self._more():
                    raise _Damaged(f"no JSON, or cut short ({error.msg})") from error
                continue
            # a number at the end of the window may go on
            if end < len(self._text) or not self._more():
                self._at = end
                return value

    def _more(self) -> bool:
        chunk = self._stream.read(_CHUNK)
        self._text = self._text[self._at :] + chunk
        self._at = 0
        return bool(chunk)
