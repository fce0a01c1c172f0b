import pytest

from keras_robust.evaluation._plots_canvas import figure_html

pytestmark = pytest.mark.once


def test_figure_escapes_what_is_said():
    page = figure_html('a "title"', "<text>", "<svg></svg>", [("<svg/>", "<name>")])
    assert 'aria-label="a &quot;title&quot;"' in page
    assert "&lt;text&gt;" in page and "<li><svg/><span>&lt;name&gt;</span></li>" in page
