"""Packages that only their device can read, where the device class demands it (`confidential = true`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pumpdeck_console.operations.vouching import Circle
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import RefusedError
from pumpdeck_fleet.core.inventory import Device
from pumpdeck_fleet.core.statements import Kind
from pumpdeck_packaging.age_box import check_recipient, encrypt
from pumpdeck_packaging.package import BuiltPackage
from pumpdeck_packaging.sealed_package import SealedPackage, seal_package


@dataclass(frozen=True, slots=True)
class StoredPackage:
    """The bytes that travel for a package: itself, or its ciphertext."""

    sha256: str
    bytes: int


def is_confidential(workspace: Workspace, device: Device) -> bool:
    """True when the device's class demands encrypted packages."""
    return workspace.fleet.device_classes[device.device_class].confidential


def age_key_of(workspace: Workspace, device: Device) -> str:
    """The device's age public key: what a person wrote into `fleet.toml`, else what the device has told; empty when unknown.

    Raises:
        FormatError: the one in `fleet.toml` is not one.
    """
    if device.age_key:
        return check_recipient(device.age_key, f"age_key of {device.id}")
    return workspace.store.age_keys.get(device.id)


def note_age_key(workspace: Workspace, device: str, age_key: str, how: str) -> None:
    """Remember the age key that a device has told under its own device key or over its pinned SSH host key."""
    if not age_key:
        return
    check_recipient(age_key, f"age key of {device}")
    at_ms = workspace.clock.now_ms()
    with workspace.store.atomic() as store:
        if store.age_keys.put(device, age_key, at_ms):
            pen = Circle(workspace).pen((workspace.fleet.device(device).site,))
            pen.write(workspace, Kind.AGE_KEY, device, {"age_key": age_key, "at_ms": str(at_ms)})
            digests = {"age_key": canonical.digest(age_key.encode("ascii"))}
            store.audit.append(workspace.actor, "device.age_key", device, reason=how, digests=digests)


def without_key(workspace: Workspace, devices: Sequence[Device]) -> dict[str, str]:
    """Devices that cannot have a package now because nothing could be encrypted to them: device -> what to do."""
    return {
        one.id: "its class is confidential and its age key is not known: enrol it again, or take in a return of it"
        for one in devices
        if is_confidential(workspace, one) and not age_key_of(workspace, one)
    }


def seal_for(workspace: Workspace, device: Device, package: BuiltPackage) -> SealedPackage | None:
    """The ciphertext of a package where its device's class demands one; made once and kept among the artifacts.

    Raises:
        RefusedError: the device's age key is not known.
    """
    if not is_confidential(workspace, device):
        return None
    age_key = age_key_of(workspace, device)
    if not age_key:
        raise RefusedError("cannot be encrypted", f"package for {device.id}", expected="the age key of the device")
    known = workspace.trust(device.site).sealed_package(device.id, package.sha256)
    if known is not None and known.age_key == age_key and workspace.artifacts.has(known.sha256):
        return known
    sealed, data = seal_package(package.data, device.id, age_key)
    workspace.artifacts.put(data)
    return sealed


def stored_package(workspace: Workspace, site: str, device: str, sha256: str, size: int) -> StoredPackage:
    """What is pushed, or written on a stick, for a released package."""
    trust = workspace.trust(site)
    sealed = trust.sealed_package(device, sha256) if trust.exists else None
    return StoredPackage(sealed.sha256, sealed.bytes) if sealed else StoredPackage(sha256, size)


def stored_digests(workspace: Workspace) -> Callable[[str, str, str], str]:
    """As `stored_package`, by site, device and digest, the metadata of each site read once."""
    sites: dict[str, dict[tuple[str, str], SealedPackage]] = {}

    def find(site: str, device: str, sha256: str) -> str:
        if site not in sites:
            trust = workspace.trust(site)
            sites[site] = trust.sealed_packages() if trust.exists else {}
        sealed = sites[site].get((device, sha256))
        return sealed.sha256 if sealed else sha256

    return find


def seal_word(workspace: Workspace, device: Device, word: bytes) -> bytes:
    """A word for one device, encrypted to it where its age key is known."""
    age_key = age_key_of(workspace, device)
    return encrypt(word, [age_key], f"word for {device.id}") if age_key else word
