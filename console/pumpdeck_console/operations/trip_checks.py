"""What could spoil a trip, looked at before it begins: keys, signatures, devices, the agent, room, and the stick itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pumpdeck_console.drives import file_system_of
from pumpdeck_console.operations.bundle_agent import architectures_of, fetched_architectures
from pumpdeck_console.operations.bundle_plan import outgoing, plan_of
from pumpdeck_console.operations.trip_files import trip_sizes
from pumpdeck_console.operations.workspace import Finding
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.inventory import Device, Link
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_fleet.core.room import standing_folder
from pumpdeck_fleet.core.sizes import size_words
from pumpdeck_packaging.bundle_index import FILE_MAX_BYTES
from pumpdeck_packaging.bundle_stick import real_stick
from pumpdeck_packaging.stick_trial import TRIAL_BYTES, StickFigures, name_traps, try_stick

RETURN_BYTES = 48 * 1024 * 1024
"""The most that one device puts on a stick at one visit."""
_SPARE_BYTES = 200_000_000
_FAT = frozenset({"vfat", "msdos", "fat", "fat12", "fat16", "fat32"})
_MOST_TOLD = 3
_BAD, _WARN, _OK = "bad", "warn", "ok"


@dataclass(frozen=True, slots=True)
class TripPlace:
    """Where a trip goes and what goes there, path and length of each file. `sticks` are the folders that bundles will go to."""

    target: Path
    sizes: Sequence[tuple[str, int]]
    sticks: Sequence[Path] = field(default=())

    @property
    def bytes(self) -> int:
        """What the trip takes on its disk."""
        return sum(size for _, size in self.sizes)


def trip_place(workspace: Workspace, devices: Sequence[Device], to: str, sticks: Sequence[str]) -> TripPlace:
    """The place, with everything that would go there counted."""
    return TripPlace(Path(to).absolute(), trip_sizes(workspace, devices), tuple(Path(one).absolute() for one in sticks))


def check_trip(
    workspace: Workspace, devices: Sequence[Device], until_ms: int, place: TripPlace
) -> tuple[Finding, ...]:
    """What could spoil the trip, looked at before it begins; never raises for what it finds."""
    sites = sorted({device.site for device in devices})
    findings = [finding for site in sites for finding in _site_findings(workspace, site, until_ms)]
    identities = workspace.store.devices.identities()
    strange = [device.id for device in devices if device.id not in identities]
    ssh = [device for device in devices if workspace.fleet.site(device.site).link is Link.SSH]
    blind = [one.id for one in ssh if one.id in identities and not (one.host_key or identities[one.id].host_key)]
    findings.append(_named("enrolled devices", strange, "are not enrolled", "pumpdeck devices enrol"))
    findings.append(_named("host keys", blind, "have no host key", "enrol them again, or write host_key into fleet.toml"))
    if ssh:
        findings.append(_login(workspace))
    findings += _agent(workspace, devices)
    couriers = [device for device in devices if workspace.fleet.site(device.site).link is Link.COURIER]
    if couriers:
        findings.append(_readers(workspace, couriers))
        if not place.sticks:
            words = f"{len(couriers)} devices are reached by stick alone, and no stick was named to be tried"
            findings.append(Finding("stick", _WARN, words, "name it with --stick DIR"))
    findings.append(_disk(workspace, place, RETURN_BYTES * len(devices)))
    return tuple(findings)


def _named(what: str, names: Sequence[str], words: str, hint: str) -> Finding:
    if names:
        return Finding(what, _WARN, f"{len(names)} {words}: {', '.join(names[:3])}", hint)
    return Finding(what, _OK, f"none {words.replace('are not', 'is not').replace('have no', 'lacks a')}")


def _site_findings(workspace: Workspace, site: str, until_ms: int) -> list[Finding]:
    trust = workspace.trust(site)
    if not trust.exists:
        return [Finding(f"trust of {site}", _BAD, "the site was never founded", "pumpdeck trust init")]
    found = []
    try:
        soon = {role: at_ms for role, at_ms in trust.status().expires_ms.items() if at_ms < until_ms}
        # A deploy key renews deploy, snapshot and timestamp with every assignment; the others need people who stay behind.
        lasting = {role: at_ms for role, at_ms in soon.items() if role in ("root", "targets", "release")}
        if lasting:
            words = ", ".join(f"{role} until {format_ms(at_ms)}" for role, at_ms in sorted(lasting.items()))
            found.append(Finding(f"trust of {site}", _BAD, f"runs out on the way: {words}", "renew it before you leave"))
        else:
            found.append(Finding(f"trust of {site}", _OK, f"holds until {format_ms(until_ms)}"))
        workspace.signing_key("deploy", site)
    except PumpdeckError as error:
        found.append(Finding(f"deploy key for {site}", _BAD, error.sentence(), error.hint))
    else:
        found.append(Finding(f"deploy key for {site}", _OK, "this person can sign there"))
    return found


def _login(workspace: Workspace) -> Finding:
    try:
        login = workspace.credentials.login()
    except PumpdeckError as error:
        return Finding("SSH key", _BAD, error.sentence(), error.hint)
    if login.key_text or login.use_agent:
        return Finding("SSH key", _OK, "there is a key to log in with")
    return Finding("SSH key", _BAD, "there is no key to log in with", "pumpdeck trust init makes one")


def _agent(workspace: Workspace, devices: Sequence[Device]) -> list[Finding]:
    """The agent itself can be made here and now; its compiled libraries need a network."""
    lacking = sorted(architectures_of(workspace, devices) - fetched_architectures(workspace))
    if not lacking:
        return [Finding("agent", _OK, "the agent and its libraries come along")]
    words = f"the agent comes along, but not its libraries for {', '.join(lacking)}: no device of that kind can be set up anew"
    return [Finding("agent", _WARN, words, f"with a network: pumpdeck package agent --wheels {lacking[0]}-cp311")]


def _readers(workspace: Workspace, couriers: Sequence[Device]) -> Finding:
    from pumpdeck_console.operations.recipients import list_recipients  # deferred: only sites with sticks ask

    sites = {device.site for device in couriers}
    rows = [row for row in list_recipients(workspace).rows if row.site in sites]
    closed = sorted({row.site for row in rows} - {row.site for row in rows if row.is_mine or row.plain})
    if closed:
        words = f"returns from {', '.join(closed[:_MOST_TOLD])} cannot be read on the way, only carried home"
        return Finding("recipient key", _WARN, words, "pumpdeck trust recipient list says who can")
    return Finding("recipient key", _OK, "what sticks bring back can be read on the way")


def _disk(workspace: Workspace, place: TripPlace, returns_bytes: int) -> Finding:
    here = standing_folder(place.target)
    free = workspace.fs.free_bytes(here)
    words = f"{size_words(free)} free at {here}, the trip takes {size_words(place.bytes)}"
    if free < place.bytes + _SPARE_BYTES:
        return Finding("disk", _BAD, words, "make room there, or name another place with --to")
    if free < place.bytes + _SPARE_BYTES + returns_bytes:
        words = f"{words} and what devices return up to {size_words(returns_bytes)} more"
        return Finding("disk", _WARN, words, "make room there")
    return Finding("disk", _OK, words)


def try_place(place: TripPlace, now_s: Callable[[], float], on_progress: Progress) -> tuple[Finding, ...]:
    """The disk that the trip itself goes to: does it keep what is written, does it take the files by their names and lengths?

    Raises:
        StickFailedError: it does not keep what is written. RefusedError: it has no room.
    """
    here = standing_folder(place.target)
    figures = try_stick(real_stick(here), now_s, on_progress, amount_bytes=TRIAL_BYTES)
    is_on_fat = is_fat(here)
    most_bytes = FILE_MAX_BYTES if is_on_fat else 1 << 62
    traps: tuple[str, ...] = ()
    if figures.folds_case or is_on_fat:
        traps = name_traps(place.sizes, folds_case=figures.folds_case, most_bytes=most_bytes)
    if traps:
        words = "; ".join(traps[:_MOST_TOLD]) + (f"; and {len(traps) - _MOST_TOLD} more" if len(traps) > _MOST_TOLD else "")
        return (Finding("names", _BAD, words, "rename them, or take a disk that is not FAT"),)
    seconds = place.bytes / figures.write_bytes_per_s
    return (Finding(f"place {here}", _OK, f"{speed_words(figures)}; about {max(1, round(seconds))} s for the trip"),)


def try_sticks(
    workspace: Workspace, devices: Sequence[Device], place: TripPlace, now_s: Callable[[], float], on_progress: Progress
) -> tuple[tuple[Finding, ...], tuple[StickFigures, ...]]:
    """Each stick that goes along: tried, measured, and whether a bundle for these devices and their returns fit on it."""
    findings, figures = [], []
    for folder in place.sticks:
        try:
            here = standing_folder(folder)
            tried = try_stick(real_stick(here), now_s, on_progress, amount_bytes=TRIAL_BYTES)
        except PumpdeckError as error:
            findings.append(Finding(f"stick {folder}", _BAD, error.sentence(), "take another stick"))
            continue
        figures.append(tried)
        findings.append(_stick(workspace, devices, folder, tried))
    return tuple(findings), tuple(figures)


def _stick(workspace: Workspace, devices: Sequence[Device], folder: Path, tried: StickFigures) -> Finding:
    plan = plan_of(workspace, outgoing(workspace, devices), folder, tried.write_bytes_per_s)
    returns = RETURN_BYTES * len(devices)
    words = f"{size_words(tried.free_bytes)} free, {speed_words(tried)}"
    fits = f"a bundle of {size_words(plan.bytes)} takes about {max(1, round(tried.seconds_for(plan.bytes)))} s"
    if tried.free_bytes < plan.bytes + RETURN_BYTES:
        full = f"{words}; {fits}, and there is no room for a return beside it"
        return Finding(f"stick {folder}", _BAD, full, "take a larger stick")
    if tried.free_bytes < plan.bytes + returns:
        lacks = f"{words}; {fits}; {len(devices)} devices may return up to {size_words(returns)}"
        return Finding(f"stick {folder}", _WARN, lacks, "take a larger stick, or bring it home in between")
    return Finding(f"stick {folder}", _OK, f"{words}; {fits}")


def speed_words(tried: StickFigures) -> str:
    """How fast it is, and whether reading back was from the medium."""
    where = "past the cache" if tried.is_past_cache else "maybe from the cache"
    write, read = size_words(tried.write_bytes_per_s), size_words(tried.read_bytes_per_s)
    folds = ", takes A and a for one name" if tried.folds_case else ""
    return f"writes {write}/s, gives back {read}/s {where}{folds}"


def is_fat(folder: Path) -> bool:
    """True where the system says that the folder lies on FAT, whose files end at 4 GB."""
    return file_system_of(folder).lower() in _FAT
