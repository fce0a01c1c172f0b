import numpy as np
import pytest

from keras_robust.data.corruptions._draws import Draws

pytestmark = pytest.mark.once


def test_an_image_has_its_own_stream():
    whole = Draws(5, "fog", 0, 4).normal((3,))
    np.testing.assert_array_equal(Draws(5, "fog", 2, 2).normal((3,)), whole[2:])
    assert len(np.unique(whole)) == whole.size
    for other in (Draws(6, "fog", 0, 4), Draws(5, "snow", 0, 4)):
        assert not np.any(other.normal((3,)) == whole)


def test_distributions():
    draws = Draws(0, "fog", 0, 2)
    normal = draws.normal((200, 100))
    assert abs(normal.mean()) < 0.02 and abs(normal.std() - 1) < 0.02
    uniform = draws.uniform(-45, 45, (200, 100))
    assert uniform.min() >= -45 and uniform.max() < 45 and abs(uniform.mean()) < 0.8
    assert draws.uniform(-1, 1).shape == (2,)
    whole = draws.integers(-2, 2, (500,))
    assert set(np.unique(whole)) == {-2, -1, 0, 1}
    counts = draws.poisson(np.full((2, 200, 100), 7.0))
    assert abs(counts.mean() - 7) < 0.1 and abs(counts.var() - 7) < 0.2
    assert {a.dtype for a in (normal, uniform, counts)} == {np.dtype("float32")}
