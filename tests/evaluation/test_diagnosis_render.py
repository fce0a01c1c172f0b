"""Diagnoses as text and as HTML."""

import html.parser

import pytest

from keras_robust.evaluation._diagnosis import format_diagnosis, render_diagnosis
from keras_robust.evaluation.diagnosis._finding import finding

pytestmark = pytest.mark.once

HOSTILE = "<script>alert('b')</script>"


@pytest.fixture
def data():
    curve = {"clean": 0.9, f"given: {HOSTILE}": 0.25}
    return {
        "artifacts": {
            HOSTILE: {
                "diagnosis": [
                    finding("steps", "suspicious", f"Few & {HOSTILE}. " * 12, {"accuracy": curve}),
                    finding("losses", "warning", "Some.", {"gained_points": 1.25}),
                    finding("gradients", "ok", "All.", {"largest_logit": 61997.0, "zero_share": 0}),
                ]
            },
            "without": {},
        }
    }


def test_text_has_verdicts_numbers_and_meaning(data):
    text = format_diagnosis(data)
    lines = text.splitlines()
    assert lines[0] == f'Honesty checks of "{HOSTILE}": 1 suspicious, 1 warning, 1 ok'
    assert lines[1] == "  suspicious  steps"
    assert f"accuracy: clean 90.0%, given: {HOSTILE} 25.0%" in " ".join(text.split())
    assert "gained: 1.2 points" in text
    assert "largest logit: 61,997; zero: 0.0%" in text
    assert max(map(len, lines)) <= 108
    assert "without" not in text


def test_html_is_escaped_and_closed(data):
    page = render_diagnosis(data)
    assert "<script" not in page and "&lt;script&gt;" in page
    opened = []

    class Parser(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag != "br":
                opened.append(tag)

        def handle_endtag(self, tag):
            assert opened.pop() == tag

    Parser().feed(page)
    assert not opened
    assert page.count('<tr><th scope="row">') == 3
    for shade in ("wrong", "caution", "right"):
        assert f'<span class="{shade}">' in page


def test_nothing_without_a_diagnosis():
    data = {"artifacts": {"a": {}, "b": {"diagnosis": []}}}
    assert format_diagnosis(data) == render_diagnosis(data) == ""
