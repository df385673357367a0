"""To whom a return on a stick is encrypted: what the site has signed and this device has accepted, never what a stick says.

A device that cannot prove what its site says writes no return: better a second visit than telemetry in strange hands.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from pumpdeck_agent.accepted import Accepted
from pumpdeck_agent.age_key import make_age_key
from pumpdeck_agent.return_items import close_open_segments
from pumpdeck_fleet.core.errors import PumpdeckError, TrustError
from pumpdeck_fleet.core.receipts import ReturnIndex, ReturnItem
from pumpdeck_packaging.bundle_layout import ASSIGNMENT_NAME, TARGETS
from pumpdeck_packaging.bundle_reader import BundleReader
from pumpdeck_packaging.bundle_returns import MAX_ITEMS, ReturnWriter, names_on
from pumpdeck_packaging.bundle_stick import Stick
from pumpdeck_packaging.returns_policy import policy_in
from pumpdeck_packaging.verify import verify_metadata

if TYPE_CHECKING:
    from pumpdeck_agent.agent import Agent

NextIndex = Callable[[tuple[ReturnItem, ...]], tuple[ReturnIndex, bytes]]

RETURN_MAX_BYTES = 48 * 1024 * 1024
_SPARE_BYTES = 1024 * 1024
_AROUND_BYTES = 4096
"""What an encrypted item needs beside its own bytes: header, recipients, tags."""


def learn_readers(agent: Agent, reader: BundleReader) -> None:
    """Accept the site's newer words on returns, also from a stick that assigns this device nothing.

    Only a newer targets role is accepted here: everything else waits for an assignment.
    """
    with contextlib.suppress(PumpdeckError):
        files = reader.metadata(agent.config.site)
        if not files:
            return
        accepted = Accepted(agent.platform.fs, agent.layout, agent.config)
        now_ms, synced = agent.platform.clock.now_ms(), agent.platform.is_clock_synced()
        with agent.platform.locks.hold(agent.layout.install_lock, agent.limits.lock_wait_s):
            state = accepted.load()
            found = verify_metadata(state, files, now_ms=now_ms, clock_synced=synced)
            before = state.floor.roles.get(TARGETS)
            if before is None or found.floor.roles[TARGETS].number > before.number:
                accepted.save_news(state, found)


def readers_of(agent: Agent) -> Mapping[str, str]:
    """Names and keys of those who may read a return; none when the site says that it is plain, or says nothing.

    Raises:
        TrustError: what the site says cannot be proven now.
    """
    state = Accepted(agent.platform.fs, agent.layout, agent.config).load()
    files = {name: data for name, data in state.kept.items() if name != ASSIGNMENT_NAME}
    try:
        # The floor is asked too: kept files that a power cut emptied, or a thief put back, must not name old readers. Time is
        # not: what was accepted in time stays the newest word there is.
        found = verify_metadata(state, files, now_ms=agent.platform.clock.now_ms(), clock_synced=False)
    except PumpdeckError as error:
        hint = "bring a stick that was exported for this site"
        raise TrustError(
            "does not know who may read its return", agent.config.device, found=error.what, hint=hint
        ) from error
    policy = policy_in({name: data for name, data in found.keep.items() if name != ASSIGNMENT_NAME})
    return policy.readers if policy else {}


def write_return(agent: Agent, stick: Stick, readers: Mapping[str, str]) -> tuple[ReturnItem, ...]:
    """Put what waits in the outbox on the stick, encrypted when there are readers. One item is in memory at a time.

    Raises:
        StickFailedError: the stick gives back other bytes. NotFoundError: the library that encrypts is not installed.
        OSError: use inside `stick_errors`.
    """
    device = agent.config.device
    hold = agent.platform.locks.hold
    with hold(agent.layout.install_lock, agent.limits.lock_wait_s):
        close_open_segments(agent.platform, agent.layout, agent.config, agent.limits, agent.outbox)
    around = _AROUND_BYTES if readers else 0
    waiting = agent.outbox.each(RETURN_MAX_BYTES, MAX_ITEMS, around)

    def next_index(listed: tuple[ReturnItem, ...]) -> tuple[ReturnIndex, bytes]:
        # A stick is slow: only what counts is done under the lock that a console may wait for.
        with hold(agent.layout.install_lock, agent.limits.lock_wait_s):
            taken = Accepted(agent.platform.fs, agent.layout, agent.config).taken()
            return agent.pen.next_index(device, agent.platform.clock.now_ms(), listed, taken)

    if readers:
        return _write_sealed(agent, stick, readers, waiting, next_index)
    items = _fitting(stick, device, waiting, lambda item: (item.digest,), 0)
    writer, written = ReturnWriter(stick, device), []
    for item, data in items:
        writer.put(item.digest, data)
        written.append(item)
    writer.finish(next_index(tuple(written))[1])
    return tuple(written)


def _write_sealed(
    agent: Agent, stick: Stick, readers: Mapping[str, str], waiting: Iterator[tuple[ReturnItem, bytes]], next_index: NextIndex
) -> tuple[ReturnItem, ...]:
    from pumpdeck_agent.sealed_memory import known_files, remember  # deferred: plain sites need no age
    from pumpdeck_packaging.sealed_return import ReturnReaders, ReturnSigner, write_sealed

    fs, device = agent.platform.fs, agent.config.device
    known = known_files(fs, agent.layout, readers)
    names = {item: tuple(file.digest for file in files) for item, files in known.items()}
    items = _fitting(stick, device, waiting, lambda item: names.get(item.digest, ()), _AROUND_BYTES)
    signer = ReturnSigner(next_index, agent.pen.sign, make_age_key(fs, agent.layout))
    written = write_sealed(stick, device, ReturnReaders(readers, known), items, signer)
    with contextlib.suppress(OSError):
        # A full disk of the device: the next visit writes more than it needs to.
        remember(fs, agent.layout, readers, known, written.files)
    return written.items


def _fitting(
    stick: Stick,
    device: str,
    waiting: Iterator[tuple[ReturnItem, bytes]],
    names_of: Callable[[ReturnItem], Collection[str]],
    around_bytes: int,
) -> Iterator[tuple[ReturnItem, bytes]]:
    """The items that have room, in their order. What an earlier visit left on the stick takes no room a second time: without
    that, a stick that is nearly full of one visit's return would have no room for it at the next.
    """
    room = max(stick.fs.free_bytes(stick.folder) - _SPARE_BYTES, 1)
    here, is_first = names_on(stick, device), True
    for item, data in waiting:
        room -= 0 if any(name in here for name in names_of(item)) else len(data) + around_bytes
        if room < 0 and not is_first:
            return
        is_first = False
        yield item, data
