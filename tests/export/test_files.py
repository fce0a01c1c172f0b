import os

import pytest

from keras_robust.export._files import beside


def test_a_failure_leaves_what_was_there(tmp_path):
    target = tmp_path / "f"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), beside(target, folder=False) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["f"]
    with beside(target, folder=False) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new" and os.listdir(tmp_path) == ["f"]


def test_the_mode_of_files_is_the_users(tmp_path):
    old = os.umask(0o022)
    try:
        with beside(tmp_path / "d", folder=True) as temporary:
            (temporary / "f").write_text("")
    finally:
        os.umask(old)
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o755
