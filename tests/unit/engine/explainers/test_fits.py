from __future__ import annotations

import numpy as np
import pytest

from engine.explainers import KernelShap, Lime
from engine.explainers.base import Explainer
from engine.explainers.fits import Fits
from engine.pool import CoalitionPool

F = 7


def pool_for(explainer: Explainer, scale: float = 1.0, extra: bool = False) -> CoalitionPool:
    pool = CoalitionPool(F)
    if extra:
        pool.tell(np.arange(F)[None] % 3 == 0, [[9.0, 9.0]])
    rows = explainer.ask(CoalitionPool(F))
    value = scale * (rows @ np.arange(F) + rows[:, 0] * rows[:, 1])
    pool.tell(rows, np.stack([value, -value], axis=1))
    return pool


def test_the_same_values_are_fitted_once() -> None:
    fits, explainer = Fits(), KernelShap(num_samples=40)
    first = fits.fitted(explainer, pool_for(explainer))
    again = fits.fitted(KernelShap(num_samples=40), pool_for(explainer))
    assert again.attribution is first.attribution
    assert again.seconds == first.seconds == fits.seconds
    np.testing.assert_array_equal(again.used, explainer.ask(CoalitionPool(F)))


def test_what_else_a_pool_has_makes_no_difference() -> None:
    fits, explainer = Fits(), Lime(num_samples=12)
    first = fits.fitted(explainer, pool_for(explainer))
    assert fits.fitted(explainer, pool_for(explainer, extra=True)).attribution is first.attribution


@pytest.mark.parametrize(
    "other",
    [
        Lime(num_samples=31),
        Lime(num_samples=30, seed=1),
        Lime(num_samples=30, kernel_width=20.0),
        Lime(num_samples=30, kernel_width=25),  # stands as 25 in the diagnostics, not as 25.0
    ],
)
def test_another_explainer_is_fitted_anew(other: Lime) -> None:
    fits, explainer = Fits(), Lime(num_samples=30)
    fits.fitted(explainer, pool_for(explainer))
    found = fits.fitted(other, pool_for(other)).attribution
    alone = other.fit(pool_for(other))
    np.testing.assert_array_equal(found.values, alone.values)
    assert repr(found.diagnostics) == repr(alone.diagnostics)
    assert len(fits) == 2


def test_other_values_are_fitted_anew() -> None:
    fits, explainer = Fits(), KernelShap(num_samples=40)
    one, two = (fits.fitted(explainer, pool_for(explainer, scale)) for scale in (1.0, 2.0))
    np.testing.assert_allclose(two.attribution.values, 2 * one.attribution.values)


def test_what_was_not_asked_for_longest_goes_first() -> None:
    explainer = KernelShap(num_samples=40)
    fits = Fits(limit_bytes=2 * (1024 + 8 * (2 * 2 * F + 2)))
    for scale in (1.0, 2.0, 1.0, 3.0):
        fits.fitted(explainer, pool_for(explainer, scale))
    assert len(fits) == 2
    before = fits.seconds
    fits.fitted(explainer, pool_for(explainer, 1.0))
    assert fits.seconds == before
    fits.fitted(explainer, pool_for(explainer, 2.0))
    assert fits.seconds > before


def test_nobody_can_change_what_is_kept() -> None:
    fits, explainer = Fits(), KernelShap(num_samples=40)
    with pytest.raises(ValueError, match="read-only"):
        fits.fitted(explainer, pool_for(explainer)).attribution.values[:] = 0
