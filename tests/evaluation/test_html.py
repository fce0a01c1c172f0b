import html
import re
import shutil
import subprocess
import sys

import matplotlib
import pytest

from keras_robust._marks import mark_of
from keras_robust.evaluation import Report
from keras_robust.evaluation._html import render_page

pytestmark = pytest.mark.once

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def test_page_needs_nothing_from_outside(small_report):
    page = render_page(small_report().to_dict())
    assert "http://" not in page and "https://" not in page and "@import" not in page
    links = re.findall(r"""\s(?:xlink:)?(?:href|src)=["']?([^"' >]*)""", page)
    assert links and all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert "<script" not in page and "<link" not in page


def test_every_name_is_escaped(small_report):
    page = render_page(small_report(title="<img src=x onerror=alert(2)>").to_dict())
    assert "<script" not in page and "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page  # a class
    assert "&lt;script&gt;alert(&#x27;b&#x27;)&lt;/script&gt;" in page  # an artifact
    assert "&lt;img src=x onerror=alert(2)&gt;" in page


def test_page_has_all_its_parts(small_report):
    page = render_page(small_report().to_dict())
    for text in (
        "Robust accuracy against size",
        "Accuracy against eps",
        "Training",
        "Images under PGD-2",
        "What broke the images",
        "Robust accuracy by class",
        "How it was measured",
        "float32 .tflite conversion",
        "size, gzipped (KB, logarithmic)",
        "linf eps (units of the inputs)",
    ):
        assert text in page, text
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    targets = re.findall(r'(?:url\(|href=")#([^")]+)', page)
    assert targets and set(targets) <= set(ids)


def test_page_leaves_out_what_there_is_not(inside):
    from keras_robust.attacks import FGSM
    from keras_robust.evaluation import evaluate

    model, x, y, _ = inside(count=5)
    report = evaluate({"m": model}, x, y, [FGSM(0.1)], eps_sweep=(), progress=False, latency_runs=1)
    page = render_page(report.to_dict())
    for text in ("against eps", "against size", "Training", "<h2>Images", "worst", "Smallest"):
        assert text not in page, text
    for text in ("Common corruptions", "Honesty checks", "By stage", "Tried too"):
        assert text not in page, text
    assert "not measured" in page


def settings():
    """All of matplotlib's settings but the backend, which is chosen when it is looked at."""
    return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}


def test_plots_neither_take_nor_change_the_users_settings(small_report):
    data, pyplot = small_report().to_dict(), "matplotlib.pyplot" in sys.modules
    plain, before = render_page(data), settings()
    with matplotlib.rc_context({"font.size": 40.0, "axes.facecolor": "black"}):
        assert render_page(data) == plain
        assert matplotlib.rcParams["font.size"] == 40.0
    assert settings() == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot


def test_marks_of_many_artifacts_differ():
    marks = {mark_of(index)[:2] + (mark_of(index).dashes,) for index in range(24)}
    assert len(marks) == 24


def widths(page, tmp_path, width):
    """(scrollWidth, innerWidth) of the page in a frame that is `width` pixels wide."""
    frame = tmp_path / f"frame{width}.html"
    frame.write_text(
        f'<iframe id="f" style="border:0;width:{width}px;height:900px" '
        f'srcdoc="{html.escape(page)}"></iframe><script>onload=()=>{{let w=document'
        '.getElementById("f").contentWindow;document.title=w.document.documentElement'
        '.scrollWidth+" "+w.innerWidth}</script>'
    )
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
    command += ["--no-first-run", "--disable-background-networking", "--disable-sync"]
    command += ["--disable-component-update", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=3000", "--dump-dom", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return tuple(map(int, re.search(r"<title>(\d+) (\d+)</title>", done.stdout).groups()))


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [1200, 400])
def test_page_is_never_wider_than_the_window(small_report, tmp_path, width):
    data = small_report().to_dict()
    long = "a-very-long-name-without-any-space" * 3
    data["artifacts"][long] = data["artifacts"]["a"]
    scroll, inner = widths(render_page(Report(data).to_dict()), tmp_path, width)
    assert inner == width and scroll <= inner
