"""The ramp by hand, and what it refuses."""

import pytest

from keras_robust.training import Ramp

pytestmark = pytest.mark.once


def test_is_linear_then_one():
    ramp = Ramp(steps=10, start=0.5)
    assert [float(ramp(step)) for step in (0, 5, 10, 500)] == pytest.approx([0.5, 0.75, 1.0, 1.0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "`steps` must be an int >= 1, got steps=0"),
        ({"steps": 1.5}, "`steps` must be an int >= 1"),
        ({"steps": 3, "start": 1.5}, r"`start` must be a number in \[0, 1\], got start=1.5"),
        ({"steps": 3, "start": "a"}, r"`start` must be a number in \[0, 1\], got start='a'"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Ramp(**settings)
