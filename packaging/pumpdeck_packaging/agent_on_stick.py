"""The agent on a stick as a device that has one already reads it: a signed word first, then exactly the bytes it names.

    agent/words/<site>                     the signed word on the agent of that site (AgentWord)
    agent/released/<sha256>                an agent that one of the words names
    agent/wheels/<target>/wheels.json ..   its compiled libraries, as for a device that has no agent yet

Nothing here is believed: every byte is asked for by a digest, and what the word says is for `verify_agent_word`.
"""

from __future__ import annotations

from pathlib import Path

from pumpdeck_fleet.core.canonical import digest as digest_of
from pumpdeck_fleet.core.errors import DigestMismatchError, NotFoundError
from pumpdeck_fleet.core.ids import check_digest, check_name
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_packaging.agent_trust import AGENT_MAX_BYTES, AGENT_WORD_MAX_BYTES
from pumpdeck_packaging.wheel_index import INDEX_MAX_BYTES, WHEELS_FILE, Wheel, parse_index

AGENT_FOLDER, WORDS_FOLDER, RELEASED_FOLDER, WHEELS_FOLDER = "agent", "words", "released", "wheels"


def word_file(site: str) -> str:
    """Where the word on a site's agent stands in a bundle."""
    return f"{AGENT_FOLDER}/{WORDS_FOLDER}/{site}"


def released_file(sha256: str) -> str:
    """Where a released agent stands in a bundle."""
    return f"{AGENT_FOLDER}/{RELEASED_FOLDER}/{sha256}"


class AgentShelf:
    """What a stick brings of agents, for one kind of computer. OSError passes through: use inside `stick_errors`."""

    def __init__(self, fs: FileSystem, folder: Path, target: str) -> None:
        self._fs = fs
        self._folder = folder / AGENT_FOLDER
        self._target = check_name(target, "target")
        self._wheels: dict[str, Wheel] = {}

    def word(self, site: str) -> bytes:
        """The signed word on the site's agent, still to be verified; empty when the stick brings none."""
        try:
            return self._fs.read_bytes(self._folder / WORDS_FOLDER / check_name(site, "site"), AGENT_WORD_MAX_BYTES)
        except FileNotFoundError:
            return b""

    def read(self, digest: str) -> bytes:
        """The bytes of that digest: an agent, the index of its libraries, or one of those (once their index was read).

        Raises:
            NotFoundError: the stick does not bring them. DigestMismatchError, TooLargeError: it brings others under that name.
        """
        check_digest(digest, "agent")
        wheels = self._folder / WHEELS_FOLDER / self._target
        wheel = self._wheels.get(digest)
        if wheel is not None:
            return self._proven(wheels / wheel.file, digest, wheel.bytes)
        if self._fs.exists(self._folder / RELEASED_FOLDER / digest):
            return self._proven(self._folder / RELEASED_FOLDER / digest, digest, AGENT_MAX_BYTES)
        data = self._proven(wheels / WHEELS_FILE, digest, INDEX_MAX_BYTES)
        self._wheels = {one.digest: one for one in parse_index(data).wheels}
        return data

    def _proven(self, path: Path, digest: str, max_bytes: int) -> bytes:
        hint = "at the office: pumpdeck bundle export --agent"
        try:
            data = self._fs.read_bytes(path, max_bytes)
        except FileNotFoundError as error:
            raise NotFoundError("is not on this stick", f"{path.name} of the agent", expected=digest[:12], hint=hint) from error
        if digest_of(data) != digest:
            raise DigestMismatchError("was damaged on the stick, or is another", path.name, expected=digest[:12], hint=hint)
        return data
