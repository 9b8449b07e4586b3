"""The Triton kernels of `actors.distribution_kernel`, under Triton's interpreter, against the float64 oracle."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language
from triton.language import standard
from triton.runtime.interpreter import InterpretedFunction

from tests.unit import uncertainty_oracle as oracle

# Read when `@triton.jit` decorates, that is when a module with kernels is imported.
with pytest.MonkeyPatch.context() as patch:
    patch.setenv("TRITON_INTERPRET", "1")
    from actors import distribution_kernel as kernel


@pytest.fixture(autouse=True)
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's own functions (`tl.max`, ...) are kernels, too: an earlier test may have imported them as such."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for name, function in list(vars(standard).items()):
        if isinstance(function, triton.JITFunction):
            for module in (standard, triton.language):
                if getattr(module, name, None) is function:
                    monkeypatch.setattr(module, name, InterpretedFunction(function.fn))


# One token, less than a group of 64, just more than one, several groups, more than a chunk of 8192.
VOCABULARIES = (1, 19, 65, 1000, 9000)
INF = np.inf


def scores_over(vocabulary: int) -> tuple[list[str], np.ndarray]:
    """Rows of every kind, by name [rows, vocabulary]."""
    rng = np.random.default_rng(vocabulary)
    normal = rng.normal(size=vocabulary)
    some = rng.random(vocabulary) < 0.05
    some[-1] = True
    with_nan, with_infinity, single = normal.copy(), normal.copy(), np.full(vocabulary, -INF)
    with_nan[vocabulary // 2], with_infinity[vocabulary // 3], single[-1] = np.nan, INF, 5.0
    rows = {
        "usual": normal * 3,
        "peaked": normal * 50,
        "flat": normal * 1e-3,
        "constant": np.full(vocabulary, 7.0),
        "masked": np.where(some, normal, -INF),
        "ties": rng.integers(0, 3, size=vocabulary).astype(float),
        "huge": normal * 1e20,
        "shifted": normal * 3 - 1e4,
        "NaN": with_nan,
        "+inf": with_infinity,
        "all masked": np.full(vocabulary, -INF),
        "single": single,
    }
    return list(rows), np.stack(list(rows.values())).astype(np.float32)


def assert_is_the_oracles(out: torch.Tensor, scores: np.ndarray, top_j: list[int], names: list[str]) -> None:
    entropy, confidence, log_max = out.numpy()
    for row, (name, j) in enumerate(zip(names, top_j, strict=True)):
        wanted = oracle.entropy_and_confidence(scores[row], j)
        where = f"{name}, j = {j}, V = {scores.shape[1]}"
        np.testing.assert_allclose((entropy[row], confidence[row]), wanted, atol=2e-5, rtol=1e-5, err_msg=where)
        if not np.isnan(wanted[0]):
            largest = -oracle.entropy_and_confidence(scores[row], 1)[1]
            np.testing.assert_allclose(log_max[row], largest, atol=2e-5, rtol=1e-5, err_msg=where)


@pytest.mark.parametrize("most", [1, 20])
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_rows_of_every_kind_are_what_the_oracle_says(vocabulary: int, most: int) -> None:
    names, scores = scores_over(vocabulary)
    out = kernel.measure_distribution(torch.from_numpy(scores), most)
    assert out.dtype == torch.float64 and out.shape == (3, len(names))
    assert_is_the_oracles(out, scores, [most] * len(names), names)


def test_each_row_has_its_own_j() -> None:
    names, scores = scores_over(1000)
    own = [1 + 7 * row % 20 for row in range(len(names))]
    out = kernel.measure_distribution(torch.from_numpy(scores), 20, torch.tensor(own))
    assert_is_the_oracles(out, scores, own, names)


def test_bfloat16_rows_are_measured_as_they_are() -> None:
    names, scores = scores_over(1000)
    rounded = torch.from_numpy(scores).bfloat16()
    out = kernel.measure_distribution(rounded, 5)
    assert_is_the_oracles(out, rounded.float().numpy(), [5] * len(names), names)


def test_rows_may_lie_apart_and_what_lies_between_is_not_read() -> None:
    names, scores = scores_over(1000)
    wide = torch.full((len(names), 1100), torch.nan)
    wide[:, :1000] = torch.from_numpy(scores)
    out = kernel.measure_distribution(wide[:, :1000], 5)
    assert_is_the_oracles(out, scores, [5] * len(names), names)


def test_more_than_there_is_of_j_averages_the_whole_vocabulary() -> None:
    names, scores = scores_over(19)
    own = [37, 25] * (len(names) // 2)
    out = kernel.measure_distribution(torch.from_numpy(scores), 37, torch.tensor(own))
    assert_is_the_oracles(out, scores, own, names)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_forcing_leaves_one_token_and_does_not_touch_the_other_rows(vocabulary: int) -> None:
    before = torch.from_numpy(np.random.default_rng(0).normal(size=(6, vocabulary)).astype(np.float32))
    logits = before.clone()
    tokens = torch.tensor([-1, 0, -1, vocabulary - 1, vocabulary // 2, -1])
    kernel.force_tokens(logits, tokens)
    assert_forced(logits, before, {row: int(token) for row, token in enumerate(tokens) if token >= 0})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forcing_named_rows_of_a_wider_array_touches_nothing_else(dtype: torch.dtype) -> None:
    wide = torch.from_numpy(np.random.default_rng(0).normal(size=(7, 1100)).astype(np.float32)).to(dtype)
    before = wide.clone()
    kernel.force_tokens(wide[:, :1000], torch.tensor([999, -1, 3]), torch.tensor([5, 0, 2]))
    assert torch.equal(wide[:, 1000:], before[:, 1000:])
    assert_forced(wide[:, :1000], before[:, :1000], {5: 999, 2: 3})


def assert_forced(logits: torch.Tensor, before: torch.Tensor, tokens: dict[int, int]) -> None:
    for row in range(len(logits)):
        expected = before[row].clone()
        if row in tokens:
            expected[:] = -INF
            expected[tokens[row]] = 0.0
        assert torch.equal(logits[row], expected), row
