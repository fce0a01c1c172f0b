"""Which tests of attacks say nothing about Keras."""

import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """An attack on `linear` alone, a plain callable, is the same under either Keras."""
    for item in items:
        fixtures = {*getattr(item, "fixturenames", ())}
        if FOLDER in item.path.parents and "linear" in fixtures and "cnn" not in fixtures:
            item.add_marker(pytest.mark.once)
