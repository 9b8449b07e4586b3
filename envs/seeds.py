"""Seeds that follow from names: the same parts give the same seed on every machine and in every order of events.

Owns: `derive_seed`. Called wherever something is sampled. Must not know: what is sampled.
"""

from __future__ import annotations

import hashlib
import operator
from typing import SupportsIndex


def derive_seed(*parts: str | SupportsIndex) -> int:
    """A seed in [0, 2**31) from whole numbers and strings; ("a", "b"), ("ab",) and ("a", 1), ("a", "1") all differ.

    31 bits because vLLM, numpy's legacy generators and ALFWorld all take that range.
    """
    if not parts:
        raise ValueError("derive_seed: needs at least one part, for example the seed of the run")
    digest = hashlib.blake2b(digest_size=4, person=b"t2po-seed")
    for place, part in enumerate(parts):
        digest.update(_encode(part, place))
    return int.from_bytes(digest.digest(), "big") & 0x7FFF_FFFF


def _encode(part: str | SupportsIndex, place: int) -> bytes:
    """Kind and length come first, so that no two lists of parts give the same bytes."""
    if isinstance(part, str):
        kind, body = b"s", part.encode("utf-8", "surrogatepass")
    elif isinstance(part, bool) or not hasattr(part, "__index__"):
        raise TypeError(f"derive_seed: part {place} is {part!r} ({type(part).__name__}); not a whole number or string")
    else:
        kind, body = b"i", str(operator.index(part)).encode("ascii")
    return kind + len(body).to_bytes(8, "big") + body
