"""One child process in which everything runs that changes something or needs heavy libraries.

The console's own process stays light and never waits. Both sides speak frames over the child's stdin and stdout: a 4-byte
big-endian length and canonical JSON. Console to worker: ``{id, operation, arguments}``, ``{cancel: id}``. Worker to
console: ``{ready}``, ``{id, progress: [step, done, total]}``, ``{id, result}``, ``{id, error}``. Operations run one at a
time in the order they came. The child is started like any program (nothing is forked), so Windows needs nothing special.

What runs is named by ``opener``, ``package.module:function``; in the child it is called with the context and gives the
function that runs an operation. Cancelling makes the operation's next progress report raise ``CancelledError``.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import EXIT_INTERRUPTED, DamagedError, PumpdeckError, UnreachableError

MAX_FRAME_BYTES = 16 * 1024 * 1024
PROGRESS_EVERY_S = 0.05
CLOSE_WAIT_S = 2.0

Json = Any
Progress = Callable[[str, int, int], None]
"""``(step, done, total)``; total 0 where it is not known."""
Run = Callable[[str, Mapping[str, Json], Progress], Json]
Opener = Callable[[Mapping[str, Json]], Run]


class CancelledError(PumpdeckError):
    """The person asked the operation to stop, and it did at a safe point."""

    exit_code = EXIT_INTERRUPTED


class WorkerDiedError(UnreachableError):
    """The worker process ended in the middle; what it had committed stands, the rest is found in the outbox."""


class OperationFailedError(PumpdeckError):
    """An operation in the worker raised; ``kind`` names its class, the words and the exit code are the original ones."""

    def __init__(self, error: Mapping[str, Json]) -> None:
        given = {key: error.get(key) or None for key in ("expected", "found")}
        super().__init__(str(error["what"]), str(error.get("which", "")), **given, hint=str(error.get("hint", "")))
        self.kind = str(error.get("error", ""))
        self.exit_code = int(error.get("exit_code", 1))


def write_frame(stream: BinaryIO, message: Mapping[str, Json]) -> None:
    """Write one frame and flush. Raises: OSError, ValueError (not plain JSON or too large)."""
    body = canonical.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {len(body)} bytes is larger than {MAX_FRAME_BYTES}")
    stream.write(struct.pack(">I", len(body)) + body)
    stream.flush()


def read_frame(stream: BinaryIO) -> dict[str, Json] | None:
    """The next frame, ``None`` at the end of the stream.

    Raises:
        DamagedError: the stream ends inside a frame, a frame is too large or no JSON object.
    """
    head = _read_exactly(stream, 4)
    if head is None:
        return None
    (size,) = struct.unpack(">I", head)
    if size > MAX_FRAME_BYTES:
        raise DamagedError("frame is too large", "worker", expected=f"at most {MAX_FRAME_BYTES} bytes", found=size)
    body = _read_exactly(stream, size)
    if body is None:
        raise DamagedError("the stream ended inside a frame", "worker")
    try:
        message = json.loads(body)
    except ValueError as error:
        raise DamagedError("frame is no JSON", "worker") from error
    if not isinstance(message, dict):
        raise DamagedError("frame is no JSON object", "worker", found=type(message).__name__)
    return message


def _read_exactly(stream: BinaryIO, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        piece = stream.read(size - len(data))
        if not piece:
            if data:
                raise DamagedError("the stream ended inside a frame", "worker")
            return None
        data += piece
    return data


# The console's side


class Task:
    """One operation under way (``tui.readers.Submission``)."""

    def __init__(self, number: int, on_progress: Progress, cancel: Callable[[int], None]) -> None:
        self.number = number
        self._on_progress, self._cancel = on_progress, cancel
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._callbacks: list[Callable[[], None]] = []
        self._result: Json = None
        self._error: PumpdeckError | None = None

    def result(self, timeout_s: float | None = None) -> Json:
        """The operation's result. Raises: what the operation raised, WorkerDiedError, TimeoutError."""
        if not self._done.wait(timeout_s):
            raise TimeoutError(f"no result within {timeout_s} s")
        if self._error is not None:
            raise self._error
        return self._result

    def cancel(self) -> None:
        """Ask the operation to stop at its next progress report."""
        self._cancel(self.number)

    def on_done(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the result is there, from another thread, or at once."""
        with self._lock:
            if not self._done.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def report(self, step: str, done: int, total: int) -> None:
        self._on_progress(step, done, total)

    def end(self, result: Json, error: PumpdeckError | None) -> None:
        with self._lock:
            if self._done.is_set():
                return
            self._result, self._error = result, error
            self._done.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


class WorkerProcess:
    """Starts the child when it is first needed, restarts it when it died, and tells every caller how his task ended."""

    def __init__(self, opener: str, context: Mapping[str, Json], log: Path | None = None) -> None:
        self._opener, self._context, self._log = opener, dict(context), log
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._tasks: dict[int, Task] = {}
        self._next = 1
        self._closed = False
        self.starts = 0

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        with self._lock:
            return self._process.pid if self._process is not None else None

    def submit(self, operation: str, arguments: Mapping[str, Json], on_progress: Progress) -> Task:
        """Start an operation; returns at once. Raises: WorkerDiedError when no worker can be started."""
        with self._lock:
            task = Task(self._next, on_progress, self._cancel)
            self._next += 1
            self._tasks[task.number] = task
            try:
                process = self._running()
                self._send(process, {"id": task.number, "operation": operation, "arguments": dict(arguments)})
            except OSError as error:
                del self._tasks[task.number]
                raise WorkerDiedError("the worker cannot be started", operation) from error
        return task

    def warm(self) -> None:
        """Start the child now, so that the first operation does not pay for it; returns at once."""
        with self._lock:
            if not self._closed:
                with contextlib.suppress(OSError):
                    self._running()

    def close(self) -> None:
        """Let the child end (it sees its input close) and take it away if it does not."""
        with self._lock:
            self._closed = True
            process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            _stream(process.stdin).close()
        try:
            process.wait(CLOSE_WAIT_S)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            command = [sys.executable, "-m", "pumpdeck_console.worker_process", self._opener, json.dumps(self._context)]
            log = self._log.open("ab") if self._log is not None else subprocess.DEVNULL
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
                )
            finally:
                if not isinstance(log, int):
                    log.close()
            self.starts += 1
            thread = threading.Thread(target=self._listen, args=(self._process,), name="pumpdeck-worker", daemon=True)
            thread.start()
        return self._process

    def _send(self, process: subprocess.Popen[bytes], message: Mapping[str, Json]) -> None:
        write_frame(_stream(process.stdin), message)

    def _cancel(self, number: int) -> None:
        with self._lock:
            if self._process is not None and number in self._tasks:
                with contextlib.suppress(OSError):
                    self._send(self._process, {"cancel": number})

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Read the child's frames until it ends; then end what is open and start it again if it had come up."""
        was_ready = False
        with contextlib.suppress(DamagedError, OSError, ValueError):
            while (message := read_frame(_stream(process.stdout))) is not None:
                was_ready = was_ready or "ready" in message
                self._hear(message)
        with self._lock:
            is_ours = self._process is process
            if is_ours:
                self._process = None
            left, self._tasks = list(self._tasks.values()), {}
        with contextlib.suppress(OSError):
            _stream(process.stdin).close()
        code = process.wait()
        if was_ready and is_ours:
            self.warm()
        for task in left:
            hint = "what it had committed stands; the rest waits in the outbox and can be started again"
            task.end(None, WorkerDiedError("the worker ended in the middle", f"exit code {code}", hint=hint))

    def _hear(self, message: Mapping[str, Json]) -> None:
        with self._lock:
            task = self._tasks.get(int(message.get("id", 0)))
            if task is not None and "progress" not in message:
                del self._tasks[task.number]
        if task is None:
            return
        if "progress" in message:
            step, done, total = message["progress"]
            task.report(str(step), int(done), int(total))
        elif "error" in message:
            error = message["error"]
            is_cancel = error.get("error") == CancelledError.__name__
            task.end(None, CancelledError(error["what"]) if is_cancel else OperationFailedError(error))
        else:
            task.end(message.get("result"), None)


def _stream(stream: Any) -> BinaryIO:
    assert stream is not None
    return stream  # type: ignore[no-any-return]


# The worker's side


class _Inbox:
    """Operations in the order they came, and which of them were cancelled; filled by a thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._messages: queue.SimpleQueue[dict[str, Json] | None] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        self.is_closed = False
        threading.Thread(target=self._fill, name="inbox", daemon=True).start()

    def _fill(self) -> None:
        with contextlib.suppress(DamagedError, OSError):
            while (message := read_frame(self._stream)) is not None:
                if "cancel" in message:
                    self._cancelled.add(int(message["cancel"]))
                else:
                    self._messages.put(message)
        self.is_closed = True
        self._messages.put(None)

    def next(self) -> dict[str, Json] | None:
        """The next operation; ``None`` when the console has gone."""
        return self._messages.get()

    def is_cancelled(self, number: int) -> bool:
        """Whether the operation is to stop: cancelled by its number, or nobody listens any more."""
        return self.is_closed or number in self._cancelled


def serve(run: Run, inbox: _Inbox, out: BinaryIO) -> None:
    """Run operations until the console goes away."""
    write_frame(out, {"ready": os.getpid()})
    while (message := inbox.next()) is not None:
        write_frame(out, _answer(run, message, inbox, out))


def _answer(run: Run, message: Mapping[str, Json], inbox: _Inbox, out: BinaryIO) -> dict[str, Json]:
    number, operation = int(message["id"]), str(message["operation"])
    told_at = 0.0

    def progress(step: str, done: int, total: int) -> None:
        nonlocal told_at
        if inbox.is_cancelled(number):
            raise CancelledError("stopped as asked", operation)
        if time.monotonic() - told_at >= PROGRESS_EVERY_S:
            told_at = time.monotonic()
            write_frame(out, {"id": number, "progress": [step, done, total]})

    try:
        if inbox.is_cancelled(number):
            raise CancelledError("stopped before it began", operation)
        return {"id": number, "result": canonical.to_plain(run(operation, message["arguments"], progress))}
    except PumpdeckError as error:
        return {"id": number, "error": error.as_dict()}
    except Exception as error:  # noqa: BLE001 - a defect in one operation must not take the worker down
        import traceback  # deferred: only a defect needs it

        traceback.print_exc()
        defect = PumpdeckError(
            f"defect: {type(error).__name__}: {error}", operation, hint="the worker's log says where"
        )
        return {"id": number, "error": defect.as_dict()}


def load_opener(name: str) -> Opener:
    """The function that ``package.module:function`` names."""
    module, _, function = name.partition(":")
    found: Opener = getattr(importlib.import_module(module), function)
    return found


def main(arguments: list[str]) -> int:
    """Entry of the child: ``opener`` and the context as JSON."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A library that prints must not get between frames: frames keep the real stdout, everybody else gets stderr.
    frames = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    inbox = _Inbox(sys.stdin.buffer)
    run = load_opener(arguments[0])(json.loads(arguments[1]))
    with contextlib.suppress(BrokenPipeError):
        serve(run, inbox, frames)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
