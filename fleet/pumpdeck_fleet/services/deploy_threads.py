"""Threads that talk to devices, and one caller that answers their mail in batches. Knows nothing of rollouts."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

BATCH_MAX = 64

M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)


class Job(Protocol[M_co]):
    """One job for a thread: runs to its end, asking the caller for what only the caller may do."""

    def run(self, ask: Callable[[object], object]) -> None: ...


@dataclass(frozen=True, slots=True)
class _Letter(Generic[M]):
    mail: M
    answer: Future[object]


class StoppedError(Exception):
    """The caller is gone; a thread that waits for an answer ends here."""


def run_threads(jobs: Sequence[Job[M]], answer: Callable[[Sequence[M]], list[object]], concurrency: int) -> None:
    """Run the jobs, at most `concurrency` at once, and answer what they ask, many letters with one call of `answer`.

    An answer that is an exception is raised in the thread that asked. Returns when all jobs are done.

    Raises:
        The first exception that leaves a job or `answer`: the other jobs are let go where they wait and start no more.
    """
    if not jobs:
        return
    letters: queue.SimpleQueue[_Letter[M] | None] = queue.SimpleQueue()
    is_stopped = threading.Event()

    def ask(mail: object) -> object:
        letter: _Letter[M] = _Letter(mail, Future())  # type: ignore[arg-type]
        if is_stopped.is_set():
            raise StoppedError
        letters.put(letter)
        return letter.answer.result()

    def work(job: Job[M]) -> None:
        try:
            if not is_stopped.is_set():
                job.run(ask)
        finally:
            letters.put(None)

    with ThreadPoolExecutor(min(concurrency, len(jobs)), thread_name_prefix="deliver") as pool:
        futures = [pool.submit(work, job) for job in jobs]
        try:
            _serve(letters, answer, futures)
        finally:
            is_stopped.set()
            _let_go(letters, futures)
    for future in futures:
        future.result()


def _serve(
    letters: queue.SimpleQueue[_Letter[M] | None],
    answer: Callable[[Sequence[M]], list[object]],
    futures: Sequence[Future[None]],
) -> None:
    running = len(futures)
    while running:
        batch = [letters.get()]
        while len(batch) < BATCH_MAX and not letters.empty():
            batch.append(letters.get())
        asked = [letter for letter in batch if letter is not None]
        running -= len(batch) - len(asked)
        for future in futures:
            if future.done() and (error := future.exception()) is not None:
                _refuse(asked)
                raise error
        try:
            answers = answer([letter.mail for letter in asked]) if asked else []
        except BaseException:
            _refuse(asked)
            raise
        for letter, said in zip(asked, answers, strict=True):
            if isinstance(said, BaseException):
                letter.answer.set_exception(said)
            else:
                letter.answer.set_result(said)


def _refuse(letters: Sequence[_Letter[M]]) -> None:
    for letter in letters:
        letter.answer.set_exception(StoppedError())


def _let_go(letters: queue.SimpleQueue[_Letter[M] | None], futures: Sequence[Future[None]]) -> None:
    # A thread may have posted between the last look and the stop: keep refusing until every job has left.
    while not all(future.done() for future in futures):
        try:
            letter = letters.get(timeout=0.05)
        except queue.Empty:
            continue
        if letter is not None:
            _refuse([letter])
