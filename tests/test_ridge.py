"""The order-free regression: against numpy's own least squares, against hand-made answers, in any order of rows."""

from __future__ import annotations

import numpy as np
import pytest

from curate import ridge
from curate.errors import InternalError

DRAW = np.random.default_rng(5)


def by_numpy(x: np.ndarray, y: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    """The same equations in floating point: columns of mean 0 and spread 1, the penalty beside them."""
    mean, spread = x.mean(axis=0), x.std(axis=0)
    scaled = (x - mean) / spread
    weights = np.linalg.solve(scaled.T @ scaled / len(x) + penalty * np.eye(x.shape[1]), scaled.T @ (y - y.mean()) / len(x)) / spread
    return weights, float(y.mean() - mean @ weights)


def sample(rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    x = DRAW.normal(size=(rows, 6)) * [1, 10, 0.01, 3, 1, 100] + [0, 5, 0, -1, 2, 1000]
    return x, x @ [2, -0.3, 100, 0, 1, 0.02] + 4 + DRAW.normal(size=rows)


def test_a_line_is_found() -> None:
    x = np.arange(10.0)[:, None]
    found = ridge.fit(x, 3 * x[:, 0] + 7)
    assert found.weights[0] == pytest.approx(3, rel=1e-4)
    assert found.intercept == pytest.approx(7, rel=1e-3)
    assert found.predict(np.array([[100.0]]))[0] == pytest.approx(307, rel=1e-3)


def test_weights_are_those_of_numpys_equations() -> None:
    x, y = sample()
    found = ridge.fit(x, y)
    weights, intercept = by_numpy(x, y, found.penalty)
    np.testing.assert_allclose(found.weights, weights, rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(found.predict(x), intercept + x @ weights, rtol=0, atol=0.01)


def test_a_row_is_predicted_by_a_fit_without_its_fold() -> None:
    x, y = sample()
    found = ridge.fit(x, y)
    for fold in range(ridge.FOLDS):
        others = np.arange(len(x)) % ridge.FOLDS != fold
        weights, intercept = by_numpy(x[others], y[others], found.penalty)
        np.testing.assert_allclose(found.left_out[~others], intercept + x[~others] @ weights, rtol=0, atol=0.02)


def test_the_order_of_rows_inside_their_folds_changes_no_bit() -> None:
    x, y = sample()
    order = np.concatenate([DRAW.permutation(80) * ridge.FOLDS + fold for fold in range(ridge.FOLDS)])
    place = np.concatenate([np.arange(80) * ridge.FOLDS + fold for fold in range(ridge.FOLDS)])
    moved = np.empty_like(order)
    moved[place] = order
    first, second = ridge.fit(x, y), ridge.fit(x[moved], y[moved])
    assert (first.weights == second.weights).all()
    assert first.intercept == second.intercept


def test_a_rows_prediction_does_not_depend_on_the_rows_around_it() -> None:
    x, y = sample()
    found = ridge.fit(x, y)
    assert (np.concatenate([found.predict(x[i : i + 1]) for i in range(len(x))]) == found.predict(x)).all()


def test_noise_chooses_a_larger_penalty_than_a_clean_line() -> None:
    x = DRAW.normal(size=(60, 40))
    assert ridge.fit(x, DRAW.normal(size=60)).penalty > ridge.fit(x[:, :2], x[:, 0]).penalty


def test_columns_that_say_nothing_weigh_nothing_and_twins_share() -> None:
    x = DRAW.normal(size=(50, 1))
    found = ridge.fit(np.column_stack([np.full(50, 3.0), np.zeros(50), x, x]), 4 * x[:, 0])
    assert found.weights[:2].tolist() == [0, 0]
    assert found.weights[2] == pytest.approx(found.weights[3])
    assert found.weights[2:].sum() == pytest.approx(4, rel=1e-3)


def test_the_same_number_everywhere_is_predicted_everywhere() -> None:
    found = ridge.fit(DRAW.normal(size=(30, 2)), np.full(30, 0.25))
    np.testing.assert_allclose(found.predict(DRAW.normal(size=(5, 2))), 0.25, rtol=1e-5)
    assert ridge.fit(np.ones((1, 1)), np.array([2.0])).predict(np.ones((1, 1)))[0] == pytest.approx(2)


def test_the_largest_fit_does_not_overflow() -> None:
    x = np.ones((ridge.MOST_ROWS, 2))
    x[::2, 1] = -1
    found = ridge.fit(x, x[:, 1] * 5)
    assert found.weights[1] == pytest.approx(5, rel=1e-4)


@pytest.mark.parametrize("x", [np.empty((0, 2)), np.array([[np.nan, 1.0]]), np.zeros((ridge.MOST_ROWS + 1, 1))])
def test_what_cannot_be_fitted_is_refused(x: np.ndarray) -> None:
    with pytest.raises(InternalError, match="rows of finite numbers"):
        ridge.fit(x, np.zeros(len(x)))
