"""Python code that looks at one input at a time, run for many at once with batched answers."""

import collections.abc
import queue
import threading

_OVER = object()
# Seconds that a job waits for its answer: whoever should give it may have failed.
_PATIENCE = 3600


class Lockstep:
    """Jobs, each in a thread, whose questions are answered together.

    A job is a function of `ask`; `ask(question)` waits for the answer. The caller takes turns
    with the jobs: `questions`, then `answer`, until nothing is asked any more.

    Args:
        jobs: functions `ask -> result`.
        lanes: most jobs at work at a time, and so the most questions at once.

    Attributes:
        results: what the jobs returned, in their order.

    >>> turns = Lockstep([lambda ask: ask(1) + ask(2), lambda ask: ask(5)])
    >>> while asked := turns.questions():
    ...     turns.answer({index: 10 * question for index, question in asked.items()})
    >>> turns.results
    [30, 50]
    """

    def __init__(self, jobs: collections.abc.Sequence, lanes: int = 128):
        self.results = [None] * len(jobs)
        self._jobs, self._lanes = jobs, lanes
        self._next = 0
        self._threads = {}
        self._inbox = queue.SimpleQueue()
        self._replies = [queue.SimpleQueue() for _ in jobs]
        self._error = None

    def questions(self) -> dict:
        """What every running job asks, by the job's number, ascending; empty when all ended.

        Raises:
            Exception: what a job raised.
        """
        asked = {}
        while len(asked) < len(self._threads) or self._start_one():
            index, question = self._inbox.get()
            if question is _OVER:
                self._threads.pop(index).join()
            else:
                asked[index] = question
        if self._error is not None:
            self.answer(dict.fromkeys(asked, _OVER))
            raise self._error
        return dict(sorted(asked.items()))

    def answer(self, answers: dict) -> None:
        """Answers by the number of the job that asked."""
        for index, reply in answers.items():
            self._replies[index].put(reply)

    def _start_one(self) -> bool:
        if self._error or self._next == len(self._jobs) or len(self._threads) == self._lanes:
            return False
        index, self._next = self._next, self._next + 1
        self._threads[index] = threading.Thread(target=self._work, args=(index,), daemon=True)
        self._threads[index].start()
        return True

    def _work(self, index):
        def ask(question):
            self._inbox.put((index, question))
            reply = self._replies[index].get(timeout=_PATIENCE)
            if reply is _OVER:
                raise queue.Empty
            return reply

        try:
            self.results[index] = self._jobs[index](ask)
        except queue.Empty:  # nobody will answer
            pass
        except Exception as error:  # raised again where the questions are asked for
            self._error = error
        finally:
            self._inbox.put((index, _OVER))
