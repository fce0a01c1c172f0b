import gzip
import os

import pytest

from keras_robust._files import beside, sizes

pytestmark = pytest.mark.once


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


def test_file_sizes_are_those_of_the_file(tmp_path):
    content = os.urandom(500) + bytes(5000)
    (tmp_path / "f").write_bytes(content)
    size, small = sizes(tmp_path / "f")
    assert size == 5500 and 500 < small < 700
    assert small == len(gzip.compress(content, 9, mtime=0))


def test_folder_sizes_depend_on_names_and_content_only(tmp_path):
    found = []
    for name, order in (("one", "ab"), ("two", "ba")):
        for file in order:
            path = tmp_path / name / "sub" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.encode() * 1000)
            os.utime(path, (1000, 1000 + len(found)))
        found.append(sizes(tmp_path / name))
    assert found[0] == found[1]
    assert found[0][0] == 2000 and found[0][1] < 300
