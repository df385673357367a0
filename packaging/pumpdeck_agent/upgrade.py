"""A device changes its own agent: verify, write into the other slot, try, put on probation, confirm, or go back.

Each step is a record before the next begins. A kill at any moment leaves the old agent active, or the new one on probation under
the launcher, which counts its starts and goes back by itself; repeating the request goes on where it stopped.
"""

from __future__ import annotations

import platform as interpreter
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from pumpdeck_agent import slot_record as moves
from pumpdeck_agent.accepted import Accepted
from pumpdeck_agent.config import AgentConfig, AgentLimits, Layout
from pumpdeck_agent.incoming import Incoming
from pumpdeck_agent.libraries import unpack_libraries
from pumpdeck_agent.platform_port import Platform
from pumpdeck_agent.probation import AgentReceipts
from pumpdeck_agent.self_check import CheckReport, CheckRequest, CheckRunner
from pumpdeck_agent.slot_record import AgentBuild, SlotPhase, SlotRecord
from pumpdeck_agent.slots import SlotFiles
from pumpdeck_fleet.core.errors import BusyError, DamagedError, NotFoundError, RefusedError, ReplayError
from pumpdeck_fleet.core.receipts import AgentReceipt, Outcome
from pumpdeck_packaging.agent_trust import AGENT_WORD_NAME, AgentWord, VerifiedAgent, verify_agent_word
from pumpdeck_packaging.trust_floor import TrustFloor
from pumpdeck_packaging.trust_rules import keys_of_role
from pumpdeck_packaging.verify import raised_floor, verify_site
from pumpdeck_packaging.wheel_index import parse_index, this_target

MAX_TRIES = 3


@dataclass(frozen=True, slots=True)
class UpgradeParts:
    """What an upgrade works with, all of one device."""

    platform: Platform
    layout: Layout
    config: AgentConfig
    limits: AgentLimits
    incoming: Incoming
    checks: CheckRunner


@dataclass(frozen=True, slots=True)
class UpgradeStand:
    """How it stands; `receipt` once it came to an end."""

    record: SlotRecord
    receipt: AgentReceipt | None = None


class Upgrader:
    """Changes the agent of one device. Callers hold the install lock, so that no package is on trial meanwhile."""

    def __init__(self, parts: UpgradeParts) -> None:
        self._parts = parts
        self._slots = SlotFiles(parts.platform, parts.layout.root)
        self._receipts = AgentReceipts(parts.config.device, parts.platform)

    def stand(self) -> UpgradeStand:
        """How the agent stands now; what the launcher rolled back gets its receipt first.

        Raises:
            RefusedError: this agent was not put into slots.
        """
        with self._slots.lock():
            record = self._slots.load()
            if record is None:
                hint = "enrol the device over SSH, with --install"
                raise RefusedError("this agent does not stand in slots", self._parts.config.device, hint=hint)
            if record.phase is SlotPhase.ROLLED_BACK and record.candidate is not None:
                receipt = self._receipts.write(record, record.candidate, Outcome.ROLLED_BACK, record.reason)
                record = self._slots.save(moves.roll_back(record, receipt))
            elif record.previous is not None and record.phase is SlotPhase.ACTIVE and not self._slots.is_sound(record.active):
                # The launcher runs the previous one by now: the damaged slot is the one to write over.
                record = self._slots.save(moves.fall_back(record))
        return UpgradeStand(record, record.receipt)

    def upgrade(self, files: Mapping[str, bytes]) -> UpgradeStand:
        """Carry out what the signed word in `files` says. Repeating it gives the same receipt and changes nothing.

        Raises:
            TrustError: the word is not to be believed; nothing changed.
            NotFoundError: the agent or its wheels were not pushed yet (`which` is the digest); nothing changed.
            BusyError: another agent is on probation.
        """
        record = self.stand().record
        verified, trusted = self._verify(files, record)
        word = verified.word
        if record.phase is SlotPhase.PROBATION:
            raise BusyError("another agent is on probation", self._parts.config.device, hint="connect again and ask for it")
        wanted = AgentBuild(moves.other_slot(record), word.sha256, word.version, word.serial, self._libraries_for(word, record))
        last = record.receipt
        is_over = record.active.sha256 == word.sha256 or moves.failure_of(wanted) in record.failed
        if last is not None and is_over and (last.sha256, last.serial) == (word.sha256, word.serial):
            return UpgradeStand(record, last)
        record = self._accept(record, verified, trusted)
        if record.active.sha256 == word.sha256 and self._slots.is_sound(record.active):
            return self._end(record, wanted, Outcome.ALREADY, "this agent is active")
        if moves.failure_of(wanted) in record.failed:
            return self._end(record, wanted, Outcome.REFUSED, "this release failed on this device before")
        data = self._read(wanted)
        record = self._stage(record, wanted, data)
        return self._try(record, wanted)

    def _verify(self, files: Mapping[str, bytes], record: SlotRecord) -> tuple[VerifiedAgent, TrustFloor]:
        if AGENT_WORD_NAME not in files:
            raise DamagedError("is missing", AGENT_WORD_NAME, expected="the signed word on the agent")
        world, config = self._parts.platform, self._parts.config
        state = Accepted(world.fs, self._parts.layout, config).load()
        metadata = {name: data for name, data in files.items() if name != AGENT_WORD_NAME}
        site = verify_site(state, metadata, now_ms=world.clock.now_ms(), clock_synced=world.is_clock_synced())
        floor = raised_floor(state, site)
        verified = verify_agent_word(files[AGENT_WORD_NAME], site, config.site)
        trusted = set(keys_of_role(site.trusted.targets, "release"))
        # A thief's number out of reach ends with his key: it counts while one of its keys is trusted.
        if verified.word.serial < record.serial and (set(record.keys) & trusted or not record.keys):
            raise ReplayError(
                "is older than the agent this device has accepted",
                AGENT_WORD_NAME,
                expected=f"serial {record.serial} or newer",
                found=verified.word.serial,
            )
        return verified, floor

    def _accept(self, record: SlotRecord, verified: VerifiedAgent, floor: TrustFloor) -> SlotRecord:
        Accepted(self._parts.platform.fs, self._parts.layout, self._parts.config).save_floor(floor)
        if (record.serial, record.keys) == (verified.word.serial, verified.keys):
            return record
        with self._slots.lock():
            return self._slots.save(moves.accept(record, verified.word.serial, verified.keys))

    def _libraries_for(self, word: AgentWord, record: SlotRecord) -> str:
        target = this_target(interpreter.machine(), sys.version_info[:2])
        if not record.active.libraries:
            return ""  # this device's Python has its own: they were there before the agent and stay
        digest = word.wheels.get(target, "")
        if not digest:
            raise RefusedError("has no libraries for this computer", AGENT_WORD_NAME, expected=target, hint="add its wheels")
        return digest

    def _read(self, wanted: AgentBuild) -> bytes:
        """The pushed agent; its libraries are unpacked first."""
        folder = self._slots.libraries(wanted.libraries) if wanted.libraries else None
        fs = self._parts.platform.fs
        if folder is not None and not fs.exists(folder):
            index = parse_index(self._parts.incoming.read(wanted.libraries))
            for wheel in index.wheels:
                if not self._parts.incoming.has(wheel.digest):
                    raise NotFoundError("a wheel is not on the device", wheel.digest, hint="push it first")
            unpack_libraries(fs, folder, index, lambda wheel: self._parts.incoming.read(wheel.digest))
            self._parts.incoming.forget({wanted.libraries, *(wheel.digest for wheel in index.wheels)})
        return self._parts.incoming.read(wanted.sha256)

    def _stage(self, record: SlotRecord, wanted: AgentBuild, data: bytes) -> SlotRecord:
        """The agent's bytes into the other slot, read back and proven."""
        if record.phase is SlotPhase.TRIAL and record.candidate == wanted and self._slots.is_sound(wanted):
            return record
        with self._slots.lock():
            if record.phase is SlotPhase.ACTIVE:
                record = self._slots.save(moves.make_room(record))
        self._slots.put(wanted.slot, data)
        if not self._slots.is_sound(wanted):
            raise DamagedError("the agent was damaged on the device's disk", wanted.sha256, hint="push it again")
        return record

    def _try(self, record: SlotRecord, wanted: AgentBuild) -> UpgradeStand:
        with self._slots.lock():
            record = self._slots.save(moves.begin_trial(record, wanted))
        if record.tries > MAX_TRIES:
            return self._roll_back(record, wanted, f"its check was cut {MAX_TRIES} times")
        libraries = str(self._slots.libraries(wanted.libraries)) if wanted.libraries else ""
        asked = CheckRequest(self._slots.archive(wanted.slot), libraries, self._parts.layout.root)
        reason = self._judge(self._parts.checks.run(asked), wanted)
        if reason:
            return self._roll_back(record, wanted, reason)
        with self._slots.lock():
            record = self._slots.save(moves.put_on_probation(record))
        self._parts.incoming.forget({wanted.sha256})
        return UpgradeStand(record)

    def _judge(self, report: CheckReport, wanted: AgentBuild) -> str:
        if report.reason:
            return f"the new agent: {report.reason}"
        if report.device != self._parts.config.device:
            return f"the new agent takes this device for {report.device}"
        if report.version != wanted.version:
            return f"the new agent says it is version {report.version}, not {wanted.version}"
        return ""

    def _roll_back(self, record: SlotRecord, wanted: AgentBuild, reason: str) -> UpgradeStand:
        receipt = self._receipts.write(record, wanted, Outcome.ROLLED_BACK, reason)
        with self._slots.lock():
            record = self._slots.save(moves.roll_back(record, receipt))
        self._parts.incoming.forget({wanted.sha256})
        return UpgradeStand(record, receipt)

    def _end(self, record: SlotRecord, wanted: AgentBuild, outcome: Outcome, reason: str) -> UpgradeStand:
        receipt = self._receipts.write(record, wanted, outcome, reason)
        with self._slots.lock():
            return UpgradeStand(self._slots.save(moves.answer(record, receipt)), receipt)
