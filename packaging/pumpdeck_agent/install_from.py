"""A stick at the device: the same verifier, the same installer and the same signed return as over SSH, from files.

A refused, damaged or failing stick leaves what runs untouched; what the device has to say stays in its outbox until a console's
signed word says that it is safe. The page that a technician reads is the last thing written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pumpdeck_agent.accepted import Accepted
from pumpdeck_agent.age_key import open_word
from pumpdeck_agent.incoming_blob import put_blob
from pumpdeck_agent.return_readers import learn_readers, readers_of, write_return
from pumpdeck_agent.stick_page import VisitWords, page
from pumpdeck_agent.upgrade_from import NO_AGENT, AgentVisit, upgrade_from
from pumpdeck_fleet.core.errors import NotFoundError, PumpdeckError
from pumpdeck_fleet.core.receipts import ASSIGNMENT_MAX_BYTES
from pumpdeck_packaging.age_box import sealed_bytes_max
from pumpdeck_packaging.bundle_index import assignment_file, kept_file, package_file
from pumpdeck_packaging.bundle_kept import KEPT_MAX_BYTES, DeviceName, verify_kept
from pumpdeck_packaging.bundle_layout import ASSIGNMENT_NAME
from pumpdeck_packaging.bundle_reader import BundleReader
from pumpdeck_packaging.bundle_returns import write_page
from pumpdeck_packaging.bundle_stick import Stick, StickFailedError, stick_errors
from pumpdeck_packaging.verify import verify_assignment, verify_site

if TYPE_CHECKING:
    from pumpdeck_agent.agent import Agent

@dataclass(frozen=True, slots=True)
class StickVisit:
    """What came of it. `outcome` is a receipt's, `waits` while staged, `none` without an assignment, or `refused`.

    `returned` counts the items on the stick now, -1 when no whole return was written; `problem` says why. `note` says why a
    console's word on an earlier return was passed over. `readers` are the names of those who can read the return; none: anybody.
    """

    device: str
    bundle: str
    outcome: str
    reason: str
    active: str
    returned: int
    returned_bytes: int
    problem: str
    exit_code: int
    note: str = ""
    readers: tuple[str, ...] = ()
    agent: AgentVisit = NO_AGENT


def install_from(agent: Agent, stick: Stick, make_way: Callable[[], None] = lambda: None) -> StickVisit:
    """Take what the stick brings, leave on it what this device has to say. Repeating it changes nothing.

    `make_way` is called when the stick brought another agent that must show now that it works: it starts that agent with the
    same stick and does not return, or does nothing where it cannot; then the next start by the launcher decides.

    Every problem of the stick or of what lies on it ends in the answer: `exit_code` 3 refused, 4 the stick failed, 5 damaged,
    6 no bundle there.
    """
    # The agent last: whatever the stick brings for the pumps is done by the one that is known to work.
    visit = _renew(agent, stick, _take(agent, stick))
    if visit.exit_code == NotFoundError.exit_code and not visit.bundle:
        return visit
    if visit.agent.is_on_probation:
        make_way()
    return _give(agent, stick, visit)


def _take(agent: Agent, stick: Stick) -> StickVisit:
    visit = StickVisit(agent.config.device, "", "none", "", "", -1, 0, "", 0)
    try:
        with stick_errors(stick.folder):
            reader = BundleReader(stick.fs, stick.folder)
            visit = replace(visit, bundle=reader.index.id)
            if reader.has(assignment_file(agent.config.site, agent.config.device)):
                visit = _install(agent, reader, visit)
            elif files := reader.metadata(agent.config.site):
                agent.assign(files)
            visit = _let_go(agent, reader, visit)
            learn_readers(agent, reader)
    except PumpdeckError as error:
        visit = replace(visit, outcome="refused", reason=error.sentence(), exit_code=error.exit_code)
    return visit


def _renew(agent: Agent, stick: Stick, visit: StickVisit) -> StickVisit:
    """Also where a package was refused: a better agent may be the cure."""
    if not visit.bundle or visit.exit_code == StickFailedError.exit_code:
        return visit
    try:
        with stick_errors(stick.folder):
            return replace(visit, agent=upgrade_from(agent, stick, BundleReader(stick.fs, stick.folder)))
    except PumpdeckError as error:
        return replace(visit, agent=AgentVisit("refused", "", error.sentence()), exit_code=visit.exit_code or error.exit_code)


def _install(agent: Agent, reader: BundleReader, visit: StickVisit) -> StickVisit:
    config = agent.config
    files = reader.metadata(config.site)
    files[ASSIGNMENT_NAME] = reader.read(assignment_file(config.site, config.device), ASSIGNMENT_MAX_BYTES)
    try:
        answer = agent.assign(files)
    except NotFoundError:
        _bring_package(agent, reader, files)
        answer = agent.assign(files)
    fields = answer.fields
    outcome = str(fields["outcome"]) or "waits"
    return replace(visit, outcome=outcome, reason=str(fields["reason"]), active=str(fields["active"]))


def _bring_package(agent: Agent, reader: BundleReader, files: dict[str, bytes]) -> None:
    """Read the assigned package once and put it where SSH would have pushed it. Verified first: a stranger fills no disk."""
    platform, config = agent.platform, agent.config
    state = Accepted(platform.fs, agent.layout, config).load()
    now_ms, synced = platform.clock.now_ms(), platform.is_clock_synced()
    package = verify_assignment(state, files, now_ms=now_ms, clock_synced=synced).package
    put_blob(agent, package.stored_sha256, reader.read(package_file(config.site, package.stored_sha256), package.bytes))


def _let_go(agent: Agent, reader: BundleReader, visit: StickVisit) -> StickVisit:
    """Take out of the outbox what a console's signed word says is safe; a word that does not hold is passed over, and said."""
    config, platform = agent.config, agent.platform
    path = kept_file(config.site, config.device)
    if not reader.has(path):
        return visit
    try:
        state = Accepted(platform.fs, agent.layout, config).load()
        now_ms, synced = platform.clock.now_ms(), platform.is_clock_synced()
        site = verify_site(state, reader.metadata(config.site), now_ms=now_ms, clock_synced=synced)
        name = DeviceName(config.site, config.device)
        word = reader.read(path, sealed_bytes_max(KEPT_MAX_BYTES))
        word = open_word(platform.fs, agent.layout, word, "kept word", KEPT_MAX_BYTES)
        agent.ack(verify_kept(word, name, site, agent.pen.signer.public))
    except PumpdeckError as error:
        return replace(visit, note=error.sentence())
    return visit


def _give(agent: Agent, stick: Stick, visit: StickVisit) -> StickVisit:
    device = agent.config.device
    try:
        with stick_errors(stick.folder):
            write_page(stick, device, page(agent, _words(visit, is_done=False)))
            visit = _write_return(agent, stick, visit)
            write_page(stick, device, page(agent, _words(visit, is_done=True)))
    except PumpdeckError as error:
        visit = replace(visit, problem=error.sentence(), exit_code=visit.exit_code or error.exit_code)
        # Said on the stick as well if it still takes three lines; a full or pulled one does not.
        with contextlib.suppress(PumpdeckError), stick_errors(stick.folder):
            write_page(stick, device, page(agent, _words(visit, is_done=True)))
    return visit


def _write_return(agent: Agent, stick: Stick, visit: StickVisit) -> StickVisit:
    readers = readers_of(agent)
    items = write_return(agent, stick, readers)
    return replace(visit, returned=len(items), returned_bytes=sum(item.bytes for item in items), readers=tuple(readers))


def _words(visit: StickVisit, *, is_done: bool) -> VisitWords:
    counts = (visit.returned, visit.returned_bytes)
    return VisitWords(visit.outcome, visit.reason, visit.active, *counts, is_done, visit.problem, visit.readers, visit.agent)
