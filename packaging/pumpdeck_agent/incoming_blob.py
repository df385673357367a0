"""Bytes that came on a stick, put where a console would have pushed them: what is there already is not written again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pumpdeck_fleet.core.canonical import digest as digest_of
from pumpdeck_fleet.core.rpc import CHUNK_BYTES

if TYPE_CHECKING:
    from pumpdeck_agent.agent import Agent


def put_blob(agent: Agent, digest: str, data: bytes) -> None:
    """Let the device have these bytes under their digest, durably.

    Raises:
        RefusedError: the disk has no room. TooLargeError, DigestMismatchError, BusyError.
    """
    pieces = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
    hashes = b"".join(bytes.fromhex(digest_of(piece)) for piece in pieces)
    with agent.platform.locks.hold(agent.layout.install_lock, agent.limits.lock_wait_s):
        incoming = agent.installer.incoming
        missing = incoming.missing(digest, len(data), hashes)
        if missing.complete:
            return
        for first, count in missing.runs:
            for index in range(first, first + count):
                incoming.write_chunk(digest, index, pieces[index])
        incoming.seal(digest, len(data))
