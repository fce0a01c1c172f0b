"""Jobs that ask together: answers in place, few at a time, and errors that end everything."""

import threading

import pytest

from keras_robust.attacks._lockstep import Lockstep

pytestmark = pytest.mark.once


def counting(limit):
    """A job that asks `limit` times and returns the sum of the answers."""
    return lambda ask: sum(ask(number) for number in range(limit))


def test_every_running_job_asks_in_every_turn():
    turns, batches = Lockstep([counting(limit) for limit in (3, 0, 1, 2)], lanes=2), []
    while asked := turns.questions():
        batches.append(asked)
        turns.answer({index: 10 * question for index, question in asked.items()})
    assert turns.results == [30, 0, 0, 10]
    assert batches[0] == {0: 0, 2: 0}
    assert all(len(asked) <= 2 for asked in batches)
    assert sum(map(len, batches)) == 6


def test_an_error_in_a_job_ends_the_others():
    def fails(ask):
        raise RuntimeError(f"after {ask(1)}")

    before = set(threading.enumerate())
    turns = Lockstep([counting(5), fails, counting(5)])
    turns.answer(turns.questions())
    with pytest.raises(RuntimeError, match="after 1"):
        turns.questions()
    for thread in before.symmetric_difference(threading.enumerate()):
        thread.join(timeout=5)
    assert set(threading.enumerate()) <= before


def test_no_jobs_ask_nothing():
    turns = Lockstep([])
    assert turns.questions() == {} and turns.results == []
