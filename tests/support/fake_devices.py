"""Simulated devices behind a fake channel: real keys and real signatures, no process, no network, and a kill at any step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DigestMismatchError, NotFoundError, PumpdeckError, UnreachableError
from pumpdeck_fleet.core.inventory import Device, DeviceClass, Fleet, Link, Pump, Site, Window
from pumpdeck_fleet.core.receipts import (
    RECEIPT_PAYLOAD_TYPE,
    RETURN_PAYLOAD_TYPE,
    Assignment,
    Outcome,
    Receipt,
    ReturnIndex,
    ReturnItem,
    ReturnKind,
    SelfTest,
)
from pumpdeck_fleet.core.rpc import CHUNK_BYTES
from pumpdeck_packaging.signing import Ed25519Signer, generate_key, sign_dsse

T0 = 1_767_225_600_000


class Killed(BaseException):
    """The process ends here: nothing after this line runs."""


class Steps:
    """Counts steps and kills at the chosen one."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.taken = 0
        self.kill_at = kill_at
        self._lock = threading.Lock()

    def step(self) -> None:
        with self._lock:
            self.taken += 1
            if self.taken == self.kill_at:
                raise Killed


@dataclass
class FakeDevice:
    """An agent as the console sees it. `outcome` is how the next new assignment ends; `commits` counts real activations."""

    device: Device
    signer: Ed25519Signer
    outcome: Outcome = Outcome.COMMITTED
    veto: str = ""
    error: PumpdeckError | None = None
    blobs: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    active: str = ""
    previous: str = ""
    seq: int = 0
    counter: int = 0
    returned: int = 0
    commits: list[str] = field(default_factory=list)
    outbox: dict[str, tuple[ReturnItem, bytes]] = field(default_factory=dict)
    receipts: dict[int, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def put(self, kind: ReturnKind, data: bytes, pump: str = "", start_ms: int = 0) -> ReturnItem:
        """Something more for the outbox."""
        item = ReturnItem(kind, canonical.digest(data), len(data), pump, start_ms)
        self.outbox[item.digest] = (item, data)
        return item

    def answer(self, op: str, header: Mapping[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        self.calls.append(op)
        return getattr(self, f"_{op}")(header, body)

    def _hello(self, header: Mapping[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        return {"device": self.device.id, "site": self.device.site, "key_id": self.signer.key_id, "seq": self.seq}, b""

    def _have(self, header: Mapping[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        if header["digest"] in self.blobs:
            return {"complete": True, "missing": []}, b""
        held = self.parts.setdefault(header["digest"], {})
        count = -(-header["bytes"] // CHUNK_BYTES)
        return {"complete": False, "missing": [[index, 1] for index in range(count) if index not in held]}, b""

    def _chunk(self, header: Mapping[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        self.parts[header["digest"]][header["index"]] = body
        return {"index": header["index"]}, b""

    def _seal(self, header: Mapping[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        parts = self.parts.pop(header["digest"])
        data = b"".join(parts[index] for index in sorted(parts))
        if canonical.digest(data) != header["digest"]:
            raise DigestMismatchError("is not what was promised", header["digest"])
        self.blobs[header["digest"]] = data
        return {"digest": header["digest"]}, b""

    def _assign(self, header: Mapping[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        files, at = {}, 0
        for entry in header["files"]:
            files[entry["name"]] = body[at : at + entry["bytes"]]
            at += entry["bytes"]
        order = canonical.decode(Assignment, files["assign.json"], "assign", max_bytes=4096)
        if order.package_sha256 not in self.blobs:
            raise NotFoundError("the package is not here", order.package_sha256)
        if self.veto:
            return {"outcome": "", "state": "STAGED", "active": self.active, "reason": self.veto}, b""
        if order.seq not in self.receipts:
            assert order.seq > self.seq
            self._end(order)
        envelope = self.receipts[order.seq]
        return {"outcome": self.outcome.value, "state": "ACTIVE", "active": self.active}, envelope

    def _end(self, order: Assignment) -> None:
        before = self.active
        if self.outcome is Outcome.COMMITTED:
            self.previous, self.active = self.active, order.package_sha256
            self.commits.append(order.package_sha256)
        self.seq, self.counter = order.seq, self.counter + 1
        is_good = self.outcome is Outcome.COMMITTED
        word = Receipt(
            1, self.device.id, order.task, order.package_sha256, order.seq, self.outcome,
            "" if is_good else "in a test", self.active, before, self.counter, T0, True, "0.1.0", "1.18",
            SelfTest(64, 1e-7, True, 20.0, 40.0, 48.0) if is_good else None,
        )  # fmt: skip
        envelope = self.sign_receipt(word)
        self.receipts[order.seq] = envelope
        self.put(ReturnKind.RECEIPT, envelope)

    def sign_receipt(self, word: Receipt) -> bytes:
        return sign_dsse(canonical.encode(word), RECEIPT_PAYLOAD_TYPE, self.signer)

    def _status(self, header: Mapping[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        state = {
            "state": "ACTIVE" if self.active else "NO_MODEL",
            "active": self.active,
            "previous": self.previous,
            "seq": self.seq,
            "counter": self.counter,
            "free_bytes": 10**9,
            "outbox": {"items": len(self.outbox), "bytes": sum(len(data) for _, data in self.outbox.values())},
            "pumps": {},
        }
        return {"state": state}, b""

    def _collect(self, header: Mapping[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        items = sorted(self.outbox.values(), key=lambda entry: list(ReturnKind).index(entry[0].kind))
        return self.batch(items)

    def batch(self, items: Sequence[tuple[ReturnItem, bytes]]) -> tuple[dict[str, Any], bytes]:
        """A signed return over these items, as the answer to `collect`."""
        self.returned += 1
        index = ReturnIndex(1, self.device.id, self.returned, T0, tuple(item for item, _ in items))
        envelope = sign_dsse(canonical.encode(index), RETURN_PAYLOAD_TYPE, self.signer)
        data = len(envelope).to_bytes(4, "big") + envelope + b"".join(data for _, data in items)
        return {"items": [canonical.to_plain(item) for item, _ in items], "more": False}, data

    def _ack(self, header: Mapping[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
        gone = [digest for digest in header["digests"] if self.outbox.pop(digest, None) is not None]
        return {"removed": len(gone)}, b""


class FakeChannel:
    """An RpcChannel to a FakeDevice; a step before and one after each call, so that an answer can get lost."""

    def __init__(self, device: FakeDevice, steps: Steps) -> None:
        self._device = device
        self._steps = steps
        self.is_closed = False

    def call(self, op: str, header: Mapping[str, Any], body: bytes = b"") -> tuple[Mapping[str, Any], bytes]:
        self._steps.step()
        if self._device.error is not None:
            raise self._device.error
        answer = self._device.answer(str(op), header, body)
        self._steps.step()
        return answer

    def close(self) -> None:
        self.is_closed = True


class FakeAssigner:
    """Keeps assignments as a trust repository would, unsigned; counts signing steps by site."""

    def __init__(self, steps: Steps | None = None) -> None:
        self.filed: dict[str, bytes] = {}
        self.batches: list[tuple[str, int]] = []
        self.error: PumpdeckError | None = None
        self.steps = steps or Steps()

    def assign(self, site: str, assignments: Sequence[Assignment]) -> None:
        self.steps.step()
        if self.error is not None:
            raise self.error
        self.batches.append((site, len(assignments)))
        self.filed.update((one.device, canonical.encode(one)) for one in assignments)
        self.steps.step()

    def files_for(self, site: str, device: str) -> list[tuple[str, bytes]]:
        if device not in self.filed:
            return [("1.root.json", b"{}")]
        return [("1.root.json", b"{}"), ("assign.json", self.filed[device])]


def make_fleet(devices: int = 4, *, link: Link = Link.SSH, window: Window | None = None, group: str = "") -> Fleet:
    """Devices d000.. on two sites with two pumps each; with `group`, the first pump of every device of a site is in it."""
    sites = tuple(Site(f"site{n}", f"Site {n}", "platform", link, window=window) for n in range(2))
    machines, pumps = [], []
    for number in range(devices):
        name, site = f"d{number:03d}", f"site{number % 2}"
        machines.append(Device(site, name, "edge", address="127.0.0.1", port=2200 + number))
        for letter in "AB":
            member = group if letter == "A" else ""
            pumps.append(Pump(site, name, f"P-{number}{letter}", "esp", "northfield", redundancy_group=member))
    classes = {"edge": DeviceClass("edge", "x86_64", "linux", "1.18", 13, 512, 50)}
    return Fleet("test", sites, tuple(machines), tuple(pumps), {}, classes, {})


def make_devices(fleet: Fleet) -> dict[str, FakeDevice]:
    return {device.id: FakeDevice(device, generate_key()) for device in fleet.devices}


def connector(devices: Mapping[str, FakeDevice], steps: Steps | None = None) -> Callable[[Device], FakeChannel]:
    """What `connect` is in the product. A device whose error is not retryable refuses the login."""
    count = steps or Steps()

    def connect(device: Device) -> FakeChannel:
        count.step()
        found = devices[device.id]
        if isinstance(found.error, UnreachableError):
            raise found.error
        return FakeChannel(found, count)

    return connect
