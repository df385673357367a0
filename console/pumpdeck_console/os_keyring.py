"""The operating system's keyring: only real ones, and never longer than a few seconds. The one importer of `keyring`."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from pumpdeck_fleet.core.errors import UnreachableError

SERVICE = "pumpdeck"
WAIT_S = 5.0
# A backend that keeps secrets in a plain file, or nowhere, is not a keyring.
_REAL = ("SecretService", "libsecret", "kwallet", "macOS", "Windows")

T = TypeVar("T")


class OsKeyring:
    """Secrets by name in the keyring of this person's session.

    A desktop's keyring can hang for ever on a session without a screen, so each call runs beside and is given up after `wait_s`.
    """

    def __init__(self, wait_s: float = WAIT_S, load_backend: Callable[[], Any] | None = None) -> None:
        self._wait_s = wait_s
        self._load = load_backend or _load_backend

    def backend_name(self) -> str:
        """What would be used, for `doctor`.

        Raises:
            UnreachableError: there is no real keyring here.
        """
        return self._within(lambda: type(self._real()).__module__.removeprefix("keyring.backends."))

    def get(self, name: str) -> str | None:
        """The secret of that name; None when it holds none.

        Raises:
            UnreachableError: there is no real keyring here, or it does not answer in time.
        """
        secret: str | None = self._within(lambda: self._real().get_password(SERVICE, name))
        return secret

    def put(self, name: str, secret: str) -> None:
        """Store a secret.

        Raises:
            UnreachableError: as `get`.
        """
        self._within(lambda: self._real().set_password(SERVICE, name, secret))

    def remove(self, name: str) -> None:
        """Forget a secret.

        Raises:
            UnreachableError: as `get`, or there is none of that name.
        """
        self._within(lambda: self._real().delete_password(SERVICE, name))

    def _real(self) -> Any:
        backend = self._load()
        members = getattr(backend, "backends", None) or [backend]
        for member in members:
            if not type(member).__module__.startswith(tuple(f"keyring.backends.{name}" for name in _REAL)):
                found = f"{type(member).__module__}.{type(member).__name__}"
                raise UnreachableError("no real keyring here", "keyring", retryable=False, found=found)
        return backend

    def _within(self, call: Callable[[], T]) -> T:
        answers: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                answers.put((call(), None))
            except Exception as error:  # noqa: BLE001 - backends raise what their desktop raises
                answers.put((None, error))

        threading.Thread(target=run, daemon=True, name="keyring").start()
        try:
            value, error = answers.get(timeout=self._wait_s)
        except queue.Empty:
            raise UnreachableError("did not answer in time", "keyring", found=f"{self._wait_s:g} s") from None
        if isinstance(error, UnreachableError):
            raise error
        if error is not None:
            raise UnreachableError(f"does not answer ({type(error).__name__})", "keyring") from error
        return value  # type: ignore[return-value]


def _load_backend() -> Any:
    import keyring  # deferred: it asks the desktop bus as soon as it is imported

    return keyring.get_keyring()
