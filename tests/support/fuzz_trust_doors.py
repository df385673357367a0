"""The doors of trust: metadata, signed words, packages, bundles, and what devices return."""

from __future__ import annotations

import base64
import json
import random
import struct
from collections.abc import Mapping
from pathlib import Path

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.device_status import DeviceStatus, OutboxStatus, PumpStatus
from pumpdeck_fleet.core.receipts import (
    AGENT_RECEIPT_PAYLOAD_TYPE,
    RECEIPT_MAX_BYTES,
    RECEIPT_PAYLOAD_TYPE,
    RETURN_PAYLOAD_TYPE,
    AgentReceipt,
    AlarmNotice,
    Receipt,
    RetrainRequest,
    ReturnIndex,
)
from pumpdeck_fleet.services.collect import ItemHead
from pumpdeck_fleet.transports.rpc_client import parse_collect
from pumpdeck_packaging import bundle_index, enrolment, manifest, package_reader, provenance, wheel_index
from pumpdeck_packaging.age_box import decrypt, parse_identities
from pumpdeck_packaging.agent_trust import verify_agent_word
from pumpdeck_packaging.backup import BACKUP_NAME, BackupFolder
from pumpdeck_packaging.bundle_agent import AGENT_INDEX_FORMAT, parse_agent_index
from pumpdeck_packaging.bundle_kept import DeviceName, verify_kept
from pumpdeck_packaging.bundle_tar import read_members
from pumpdeck_packaging.downgrade import verify_downgrade
from pumpdeck_packaging.metadata_form import parse_form
from pumpdeck_packaging.returns_policy import parse_policy
from pumpdeck_packaging.sealed_return import SEALED_PAYLOAD_TYPE, _checked
from pumpdeck_packaging.signing import verify_dsse
from pumpdeck_packaging.trust_floor import parse_floor
from pumpdeck_packaging.trust_proposal import parse_proposal
from pumpdeck_packaging.verify import verify_assignment
from support.fuzz_samples import DEVICE, FORMATS, TRUST, Samples
from support.fuzz_targets import (
    Target,
    bytes_maker,
    decoder,
    file_parser,
    json_maker,
    rexz,
    with_outer,
)
from support.golden_trust import seeded_key
from support.trust import NOW_MS

_CHANNELS = ("pressure_bar", "speed_rpm")


class _Memory:
    """A tar in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read_at(self, offset: int, count: int) -> bytes:
        return self._data[offset : offset + count]

    def close(self) -> None:
        pass


def trust_doors(samples: Samples, folder: Path) -> list[Target]:
    """Every door of this file; `folder` is for those that read files."""
    return [
        *_trust(samples),
        *_signed(samples),
        *_resigned(samples),
        *_package(samples),
        *_bundle(samples, folder),
        *_returns(samples),
    ]


def _trust(samples: Samples) -> list[Target]:
    files, state_ = samples.files, samples.trust_state()
    whole = [json.dumps({name: data.decode() for name, data in files.items()}).encode()]
    names = sorted(samples.metadata)
    pairs = [name.encode() + b"\n" + samples.metadata[name] for name in names]

    def form(data: bytes) -> object:
        name, _, rest = data.partition(b"\n")
        return parse_form(name.decode("utf-8", "replace"), rest)

    def one_bent(rng: random.Random) -> bytes:
        name = rng.choice(sorted(files))
        inner = json_maker([files[name]])
        return json.dumps({**json.loads(whole[0]), name: inner(rng).decode("utf-8", "replace")}).encode()

    def assignment(data: bytes) -> object:
        plain: Mapping[str, str] = json.loads(data)
        given = {name: text.encode("utf-8", "surrogatepass") for name, text in plain.items()}
        return verify_assignment(state_, given, now_ms=NOW_MS, clock_synced=False)

    def policy(data: bytes) -> object:
        return parse_policy(parse_form("1.targets.json", data))

    makers = [
        json_maker([samples.metadata[name]], lambda one, name=name: name.encode() + b"\n" + one) for name in names
    ]
    return [
        Target("metadata form", form, lambda rng: rng.choice(makers)(rng), 1.5),
        Target("metadata bytes", form, bytes_maker(pairs)),
        Target("assignment with its metadata", assignment, one_bent, 0.08, frozenset(whole)),
        Target("returns policy", policy, json_maker([files["1.targets.json"]]), 0.5),
        Target("floor", parse_floor, json_maker([(TRUST / "floor.json").read_bytes()])),
        Target("proposal", parse_proposal, json_maker([samples.proposal]), 0.06),
    ]


def _signed(samples: Samples) -> list[Target]:
    """Envelopes as they come, where only the honest one may pass, and payloads signed anew by whoever holds the key."""
    keys, site, envelopes = samples.device_keys, samples.verified, samples.envelopes
    name, device = DeviceName("gannet", DEVICE), seeded_key(9).public

    def opened(kind: str, limit: int = 1 << 20) -> object:
        return lambda data: verify_dsse(data, kind, keys, limit)

    doors = {
        "receipt": opened(RECEIPT_PAYLOAD_TYPE, RECEIPT_MAX_BYTES),
        "agent-receipt": opened(AGENT_RECEIPT_PAYLOAD_TYPE),
        "return.json": opened(RETURN_PAYLOAD_TYPE),
        "kept": lambda data: verify_kept(data, name, site, device),
        "agent.dsse.json": lambda data: verify_agent_word(data, site, "gannet"),
        "downgrade": lambda data: verify_downgrade(data, site.trusted, "gannet"),
        "form": lambda data: enrolment.check_form(data, DEVICE, samples.metadata, NOW_MS),
        "answer": lambda data: enrolment.check_answer(data, samples.form, samples.plain_form),
    }
    found = []
    for kind, parse in doors.items():
        data = envelopes[kind]
        make = bytes_maker([data]) if kind == "kept" else json_maker([data])
        found.append(Target(f"signed {kind}", parse, make, 0.05 if kind == "form" else 0.3, frozenset([data])))  # type: ignore[arg-type]
    return found


def _resigned(samples: Samples) -> list[Target]:
    """A hostile device: its own key signs whatever it likes."""
    keys = samples.device_keys
    answer = json.loads(base64.b64decode(json.loads(samples.answer)["payload"]))
    shapes = {
        "receipt": (RECEIPT_PAYLOAD_TYPE, samples.receipt, Receipt),
        "agent receipt": (AGENT_RECEIPT_PAYLOAD_TYPE, samples.agent_receipt, AgentReceipt),
        "return index": (RETURN_PAYLOAD_TYPE, samples.index, ReturnIndex),
    }
    found = []
    for name, (kind, value, cls) in shapes.items():

        def parse(data: bytes, kind: str = kind, cls: type = cls, name: str = name) -> object:
            return canonical.decode(cls, verify_dsse(data, kind, keys, 1 << 20), name, max_bytes=1 << 20)

        make = json_maker([canonical.encode(value)], lambda one, kind=kind: samples.sign(one, kind))
        found.append(Target(f"{name} of a hostile device", parse, make, 0.3))
    sealed_list = json.loads(
        base64.b64decode(json.loads((FORMATS / "sealed/returns" / DEVICE / "return.json").read_bytes())["payload"])
    )
    hostile = json_maker([canonical.encode(answer)], lambda one: samples.sign(one, enrolment.ANSWER_PAYLOAD_TYPE))
    return [
        *found,
        Target(
            "answer of a hostile device",
            lambda data: enrolment.check_answer(data, samples.form, samples.plain_form),
            hostile,
            0.2,
        ),
        Target("sealed return list", lambda data: _checked(data, DEVICE), json_maker([canonical.encode(sealed_list)])),
        Target(
            "envelope",
            lambda data: verify_dsse(data, SEALED_PAYLOAD_TYPE, keys, 1 << 20),
            json_maker(list(samples.envelopes.values())[:3]),
            0.5,
        ),
    ]


def _package(samples: Samples) -> list[Target]:
    package, tar = samples.package, samples.package_tar
    text = (TRUST / "manifest.json").read_bytes()
    keys = {seeded_key(5).key_id: seeded_key(5).public_pem}
    statement = base64.b64decode(json.loads((TRUST / "package.intoto.jsonl").read_bytes())["payload"])
    digest = canonical.digest(package)

    def read(data: bytes) -> object:
        return package_reader.read_package(data, expected_sha256=canonical.digest(data), max_unpacked_bytes=1 << 20)

    def signed_statement(data: bytes) -> bytes:
        from pumpdeck_packaging.signing import IN_TOTO_PAYLOAD_TYPE, sign_dsse

        return sign_dsse(data, IN_TOTO_PAYLOAD_TYPE, seeded_key(5))

    return [
        Target("manifest", manifest.parse_manifest, json_maker([text]), 1.5),
        Target("package bytes", read, bytes_maker([package]), 0.3),
        Target("package from a bent tar", read, with_outer(bytes_maker([tar]), rexz), 0.1),
        Target(
            "provenance",
            lambda data: provenance.verify_provenance(data, digest, keys),
            json_maker([statement], signed_statement),
            0.2,
        ),
    ]


def _bundle(samples: Samples, folder: Path) -> list[Target]:
    tar = (FORMATS / "bundle.tar").read_bytes()
    members = {name: tar[at : at + size] for name, (at, size) in read_members(_Memory(tar), "bundle").items()}
    agent = {"format": AGENT_INDEX_FORMAT, "version": "0.2.0", "files": {"agent.pyz": {"bytes": 5, "digest": "a" * 64}}}
    wheel = {
        "name": "numpy",
        "version": "2.0",
        "file": "numpy-2.0.whl",
        "wheel": "numpy-2.0-cp311.whl",
        "bytes": 9,
        "digest": "b" * 64,
    }
    wheels = {"format": 1, "target": "x86_64-cp311", "wheels": [wheel]}
    backup = folder / "backup"
    backup.mkdir(exist_ok=True)
    listed = (FORMATS / "backup" / "backup.json").read_bytes()
    identities = parse_identities(
        "AGE-SECRET-KEY-1NM0Y4QZ3GJRHU45JJHKUT6L4U6T0MF4LR0YJ3LVXFXFJRAKKMP2SL6ASH6", "golden"
    )
    boxes = [
        path.read_bytes() for path in (FORMATS / "sealed").rglob("*") if path.is_file() and path.name != "return.json"
    ]
    return [
        Target("bundle.json", bundle_index.parse_index, json_maker([members["bundle.json"]]), 1.5),
        Target("bundle.id", bundle_index.parse_mark, json_maker([members["bundle.id"]])),
        Target("bundle in a tar", lambda data: read_members(_Memory(data), "bundle"), bytes_maker([tar]), 0.4),
        Target("agent.json", parse_agent_index, json_maker([json.dumps(agent).encode()])),
        Target("wheels.json", wheel_index.parse_index, json_maker([json.dumps(wheels).encode()])),
        Target("backup.json", file_parser(backup / BACKUP_NAME, BackupFolder(backup).read), json_maker([listed]), 0.3),
        Target(
            "age box", lambda data: decrypt(data, identities, "box", 1 << 16), bytes_maker(boxes), 0.3, frozenset(boxes)
        ),
    ]


def _returns(samples: Samples) -> list[Target]:
    alarm, request = samples.items[1][1], samples.items[2][1]
    head = {
        "items": [canonical.to_plain(item) for item, _ in samples.items],
        "more": False,
        "v": 1,
        "id": 1,
        "op": "collect",
        "ok": True,
    }
    envelope = samples.envelopes["return.json"]
    body = struct.pack(">I", len(envelope)) + envelope + b"".join(data for _, data in samples.items)
    status = DeviceStatus("ACTIVE", "a" * 64, "", 128, 4, 10, OutboxStatus(1, 2), {"P-101A": PumpStatus(5, 6, 1.5)})

    def collected(data: bytes) -> object:
        line, _, rest = data.partition(b"\n")
        plain = canonical.parse_json(line, "header", max_bytes=1 << 16)
        return parse_collect(plain if isinstance(plain, dict) else {}, rest)

    lines = json_maker([canonical.encode(head)], lambda one: one.replace(b"\n", b"") + b"\n" + body)
    return [
        Target("alarm notice", decoder(AlarmNotice, "alarm"), json_maker([alarm])),
        Target("retrain request", decoder(RetrainRequest, "request"), json_maker([request])),
        Target("item head", decoder(ItemHead, "head"), json_maker([samples.items[3][1].partition(b"\n")[0]])),
        Target("collect answer", collected, lines, 0.8),
        Target("collect bytes", collected, bytes_maker([canonical.encode(head) + b"\n" + body]), 0.5),
        Target("device status", decoder(DeviceStatus, "status"), json_maker([canonical.encode(status)])),
    ]
