"""What TTI does to a request does not depend on its neighbours: real engines, both of vLLM's runners, on a CPU.

Owns: the requests, the engine configurations, and the comparison of each with the same requests one at a time. The
engines run in `tests.integration.invariance_process`, one process for each runner.

Tokens, and what fired where, must be the same to the letter: no token may differ. M, the range and Φ are the same up to
`TOLERANCE`: another batch means another order of summation in the matrix products, logits differ by some 1e-6 and M by
that over the width of its range.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from tests.integration import random_policy
from tests.unit import uncertainty_oracle as oracle

pytestmark = pytest.mark.timeout(600)

TOLERANCE = 1e-4
PROCESS_TIMEOUT_S = 400.0
COUNT = {"v1": 24, "v2": 9}  # Triton's interpreter is slow
MAX_TOKENS = 36
SHARED_PROMPT = np.random.default_rng(1000).integers(440, random_policy.VOCABULARY, size=64).tolist()
# ε, N, L_min and the cap: three that end by uncertainty, one by the cap, one mostly by itself, one that is only measured
SETTINGS: list[dict[str, Any]] = [
    {"epsilon": 0.06, "window": 2, "min_tokens": 6, "think_cap": 60},
    {"epsilon": 0.0, "think_cap": 7, "top_j": 5},
    {"epsilon": 0.04, "window": 3, "min_tokens": 5, "think_cap": 24, "alpha": 0.8},
    {"epsilon": 0.0, "think_cap": 60},
    {"epsilon": 0.08, "window": 5, "min_tokens": 4, "think_cap": 24, "top_j": 12, "signal": "confidence"},
    {"epsilon": 0.5, "think_cap": 3, "tti": "off"},
]


def request_of(number: int, temperature: float = 1.0) -> dict[str, Any]:
    """Request `number`, always the same one. Every other prompt begins like all the long ones."""
    rng = np.random.default_rng(number)
    own = rng.integers(440, random_policy.VOCABULARY, size=20 + 5 * number % 37).tolist()
    tti = SETTINGS[number % len(SETTINGS)]
    if number % 4 < 2:
        tti = tti | {"range": [0.5, 5.0, 3.0, 9.0]}
    return {
        "id": f"r{number}",
        "prompt": (SHARED_PROMPT if number % 2 else []) + own,
        "params": {"max_tokens": MAX_TOKENS, "seed": number, "temperature": temperature},
        "tti": tti,
    }
