import pytest

from keras_robust.evaluation._progress import Progress

pytestmark = pytest.mark.once


def test_callable_gets_finished_lines_only():
    lines = []
    say = Progress(lines.append)
    say("one")
    say.update("tw")
    say.update("two")
    say.done()
    say.done()
    assert lines == ["one", "two"]


def test_false_is_silent_and_true_writes_to_stderr(capsys):
    Progress(False)("nothing")
    Progress(True)("something")
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == "something\n"


def test_other_values_are_refused():
    with pytest.raises(TypeError, match="`progress` must be True, False or a callable, got 'yes'"):
        Progress("yes")
