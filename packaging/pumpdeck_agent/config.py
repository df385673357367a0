"""What a device is (`agent.json`), where its things stand under the root folder, and the limits an operator may change."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError, NotFoundError
from pumpdeck_fleet.core.ids import check_digest, check_name, check_tag
from pumpdeck_fleet.core.ports import FileSystem

CONFIG_FORMAT = 1
CONFIG_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class PumpConfig:
    """One pump beside this device."""

    tag: str
    type: str
    criticality: int = 3
    redundancy_group: str = ""


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Who this device is. `min_seq`: no assignment below it is ever believed, whatever became of the disk since enrolment.

    `needs_permit`: an assignment without a permit or work-order number is refused. `undo_needs_token`: so is going back to the
    package that ran right before, which otherwise is no downgrade. Both are None where nobody asked for it; what the site demands
    in signed words (`pumpdeck_packaging/device_rules.py`) wins over both.
    """

    format: int
    device: str
    site: str
    device_class: str
    pumps: tuple[PumpConfig, ...]
    min_seq: int = 0
    needs_permit: bool | None = None
    undo_needs_token: bool | None = None

    def __post_init__(self) -> None:
        check_name(self.device, "agent.json.device")
        check_name(self.site, "agent.json.site")
        tags = [check_tag(pump.tag, "agent.json.pumps").lower() for pump in self.pumps]
        if len(set(tags)) != len(tags):
            raise FormatError("has a pump twice", "agent.json.pumps")
        if self.format != CONFIG_FORMAT or self.min_seq < 0:
            raise FormatError("has an unknown format or a negative min_seq", "agent.json", expected=CONFIG_FORMAT)

    def pump(self, tag: str) -> PumpConfig | None:
        """The pump of that tag, whatever the case; None when it is not ours."""
        return next((pump for pump in self.pumps if pump.tag.lower() == tag.lower()), None)


@dataclass(frozen=True, slots=True)
class AgentLimits:
    """What bounds the agent. Bytes on disk unless the name says otherwise.

    capture_around_s, capture_max_bytes: rows so long before and after an alarm are pinned, newest alarms first, up to so much.
    max_moves: state records that one assignment may cost before it is given up. shadow_starts: how often scoring may start anew
    beside one candidate.
    """

    outbox_max_bytes: int = 64 * 1024 * 1024
    outbox_max_items: int = 20_000
    spool_max_bytes: int = 64 * 1024 * 1024
    spool_file_max_bytes: int = 32 * 1024 * 1024
    capture_around_s: float = 900.0
    capture_max_bytes: int = 8 * 1024 * 1024
    keep_free_bytes: int = 16 * 1024 * 1024
    open_rows: int = 256
    segment_rows: int = 4096
    max_tries: int = 2
    max_moves: int = 40
    shadow_starts: int = 10
    trial_wall_s: float = 60.0
    lock_wait_s: float = 20.0


@dataclass(frozen=True)
class Layout:
    """Where everything stands under a device's root folder (docs/formats.md, Agent root folder)."""

    root: Path

    @cached_property
    def config(self) -> Path:
        return self.root / "agent.json"

    @cached_property
    def device_key(self) -> Path:
        return self.root / "device.key"

    @cached_property
    def device_public(self) -> Path:
        return self.root / "device.pub"

    @cached_property
    def age_key(self) -> Path:
        return self.root / "device.age"

    @cached_property
    def age_public(self) -> Path:
        return self.root / "device.age.pub"

    @cached_property
    def trust_root(self) -> Path:
        return self.root / "trust" / "root.json"

    @cached_property
    def trust_root_copy(self) -> Path:
        return self.root / "trust" / "root.sealed"

    @cached_property
    def trust_floor(self) -> Path:
        return self.root / "trust" / "floor.json"

    @cached_property
    def trust_kept(self) -> Path:
        return self.root / "trust" / "kept.json"

    @cached_property
    def returned(self) -> Path:
        return self.root / "trust" / "returned.json"

    @cached_property
    def incoming(self) -> Path:
        return self.root / "incoming"

    @cached_property
    def store(self) -> Path:
        return self.root / "store"

    @cached_property
    def outbox(self) -> Path:
        return self.root / "outbox"

    @cached_property
    def spool_in(self) -> Path:
        return self.root / "spool" / "in"

    @cached_property
    def spool_refused(self) -> Path:
        return self.root / "spool" / "refused"

    @cached_property
    def pump_states(self) -> Path:
        return self.root / "spool" / "state"

    @cached_property
    def journal(self) -> Path:
        return self.root / "journal"

    @cached_property
    def veto(self) -> Path:
        return self.root / "veto.json"

    @cached_property
    def trips(self) -> Path:
        return self.root / "trips.json"

    @cached_property
    def alarms(self) -> Path:
        return self.root / "alarms.json"

    @cached_property
    def schedule(self) -> Path:
        return self.root / "schedule.json"

    @cached_property
    def acknowledged(self) -> Path:
        return self.root / "acknowledged"

    @cached_property
    def shadow(self) -> Path:
        return self.root / "spool" / "shadow"

    @cached_property
    def install_lock(self) -> Path:
        return self.root / "install.lock"

    @cached_property
    def score_lock(self) -> Path:
        return self.root / "score.lock"

    def state_copy(self, which: int) -> Path:
        """One of the two copies of the device state."""
        return self.root / f"state.{which}"

    def package(self, digest: str) -> Path:
        """The folder of an unpacked package."""
        return self.store / check_digest(digest, "package")

    def pump_state(self, tag: str) -> Path:
        """What a pump's scoring carries from row to row."""
        return self.pump_states / f"{tag.lower()}.bin"

    def folders(self) -> tuple[Path, ...]:
        """All folders that enrolment makes."""
        return (
            self.root,
            self.trust_root.parent,
            self.incoming,
            self.store,
            self.outbox,
            self.spool_in,
            self.spool_refused,
            self.pump_states,
        )


def read_config(fs: FileSystem, layout: Layout) -> AgentConfig:
    """The device's own description.

    Raises:
        NotFoundError: this folder is not a device's root.
        FormatError, TooLargeError: the file is damaged.
    """
    try:
        data = fs.read_bytes(layout.config, CONFIG_MAX_BYTES)
    except FileNotFoundError as error:
        raise NotFoundError(
            "is not a device's root folder", str(layout.root), expected="agent.json in it", hint="pumpdeck-agent init"
        ) from error
    return canonical.decode(AgentConfig, data, "agent.json", max_bytes=CONFIG_MAX_BYTES)
