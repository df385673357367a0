"""The table of doors: trust, bundles, what devices return, the conversation, and what people and sensors hand in."""

from __future__ import annotations

import base64
import json
import random
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

from pumpdeck_agent import http_wire, row_request, serve_settings, shadow_file, slot_record, spool, state, trial
from pumpdeck_agent.mqtt_rows import Message, RowReader
from pumpdeck_agent.mqtt_settings import RowTopic
from pumpdeck_agent.pump_record import BLOBS, PumpFigures
from pumpdeck_agent.pump_record import decode_record as decode_pump_record
from pumpdeck_agent.spool_binary import encode_segment
from pumpdeck_console.config import load_policies
from pumpdeck_fleet.core import canonical, rpc
from pumpdeck_fleet.core import query as query_language
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
    ShadowSketch,
)
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.numeric.arrays import decode_arrays, encode_arrays
from pumpdeck_fleet.numeric.columns import decode_chunk, encode_chunk
from pumpdeck_fleet.numeric.detectors import decode_block
from pumpdeck_fleet.numeric.edges import decode_edges, encode_edges
from pumpdeck_fleet.numeric.sketch import decode_sketch, encode_sketch, make_sketch
from pumpdeck_fleet.services.collect import ItemHead
from pumpdeck_fleet.services.inventory_file import parse_fleet
from pumpdeck_fleet.services.toml_file import read_toml
from pumpdeck_fleet.transports.rpc_client import parse_collect
from pumpdeck_packaging import bundle_index, enrolment, manifest, package_reader, provenance, wheel_index
from pumpdeck_packaging.agent_trust import verify_agent_word
from pumpdeck_packaging.age_box import decrypt, parse_identities
from pumpdeck_packaging.backup import BACKUP_NAME, BackupFolder
from pumpdeck_packaging.bundle_agent import AGENT_INDEX_FORMAT, parse_agent_index
from pumpdeck_packaging.bundle_kept import DeviceName, verify_kept
from pumpdeck_packaging.bundle_tar import read_members
from pumpdeck_packaging.downgrade import verify_downgrade
from pumpdeck_packaging.metadata_form import parse_form
from pumpdeck_packaging.returns_policy import parse_policy
from pumpdeck_packaging.sealed_return import SEALED_PAYLOAD_TYPE, _checked
from pumpdeck_packaging.signing import load_key, public_key_of, verify_dsse
from pumpdeck_packaging.trust_floor import parse_floor
from pumpdeck_packaging.trust_proposal import parse_proposal
from pumpdeck_packaging.verify import verify_assignment
from support.fuzz_samples import DEVICE, DOCS, FORMATS, TRUST, Samples
from support.fuzz_targets import (
    Target,
    bytes_maker,
    decoder,
    file_parser,
    framed,
    json_maker,
    rexz,
    sealed,
    text_of,
    with_outer,
)
from support.golden_trust import seeded_key
from support.rollouts import make_plan, started
from support.sketch_rows import NAMES, awkward_edges, awkward_rows
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


def all_targets(folder: Path) -> list[Target]:
    """Every door; `folder` is for those that read files."""
    samples = Samples(folder)
    return [
        *_trust(samples),
        *_signed(samples),
        *_package(samples),
        *_bundle(samples, folder),
        *_returns(samples),
        *_numeric(samples),
        *_records(),
        *_conversation(samples),
        *_people(folder),
        *_rows(samples),
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

    makers = [json_maker([samples.metadata[name]], lambda one, name=name: name.encode() + b"\n" + one) for name in names]
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
    return found + _resigned(samples)


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
    sealed_list = json.loads(base64.b64decode(json.loads((FORMATS / "sealed/returns" / DEVICE / "return.json").read_bytes())["payload"]))
    hostile = json_maker([canonical.encode(answer)], lambda one: samples.sign(one, enrolment.ANSWER_PAYLOAD_TYPE))
    return [
        *found,
        Target("answer of a hostile device", lambda data: enrolment.check_answer(data, samples.form, samples.plain_form), hostile, 0.2),
        Target("sealed return list", lambda data: _checked(data, DEVICE), json_maker([canonical.encode(sealed_list)])),
        Target("envelope", lambda data: verify_dsse(data, SEALED_PAYLOAD_TYPE, keys, 1 << 20), json_maker(list(samples.envelopes.values())[:3]), 0.5),
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
        Target("provenance", lambda data: provenance.verify_provenance(data, digest, keys), json_maker([statement], signed_statement), 0.2),
    ]


def _bundle(samples: Samples, folder: Path) -> list[Target]:
    tar = (FORMATS / "bundle.tar").read_bytes()
    members = {name: tar[at : at + size] for name, (at, size) in read_members(_Memory(tar), "bundle").items()}
    agent = {"format": AGENT_INDEX_FORMAT, "version": "0.2.0", "files": {"agent.pyz": {"bytes": 5, "digest": "a" * 64}}}
    wheel = {"name": "numpy", "version": "2.0", "file": "numpy-2.0.whl", "wheel": "numpy-2.0-cp311.whl", "bytes": 9, "digest": "b" * 64}
    wheels = {"format": 1, "target": "x86_64-cp311", "wheels": [wheel]}
    backup = folder / "backup"
    backup.mkdir(exist_ok=True)
    listed = (FORMATS / "backup" / "backup.json").read_bytes()
    identities = parse_identities("AGE-SECRET-KEY-1NM0Y4QZ3GJRHU45JJHKUT6L4U6T0MF4LR0YJ3LVXFXFJRAKKMP2SL6ASH6", "golden")
    boxes = [path.read_bytes() for path in (FORMATS / "sealed").rglob("*") if path.is_file() and path.name != "return.json"]
    return [
        Target("bundle.json", bundle_index.parse_index, json_maker([members["bundle.json"]]), 1.5),
        Target("bundle.id", bundle_index.parse_mark, json_maker([members["bundle.id"]])),
        Target("bundle in a tar", lambda data: read_members(_Memory(data), "bundle"), bytes_maker([tar]), 0.4),
        Target("agent.json", parse_agent_index, json_maker([json.dumps(agent).encode()])),
        Target("wheels.json", wheel_index.parse_index, json_maker([json.dumps(wheels).encode()])),
        Target("backup.json", file_parser(backup / BACKUP_NAME, BackupFolder(backup).read), json_maker([listed]), 0.3),
        Target("age box", lambda data: decrypt(data, identities, "box", 1 << 16), bytes_maker(boxes), 0.3, frozenset(boxes)),
    ]


def _returns(samples: Samples) -> list[Target]:
    alarm, request = samples.items[1][1], samples.items[2][1]
    head = {"items": [canonical.to_plain(item) for item, _ in samples.items], "more": False, "v": 1, "id": 1, "op": "collect", "ok": True}
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


def _numeric(samples: Samples) -> list[Target]:
    chunk = encode_chunk(samples.frame)
    names = chunk.index(b"speed_rpm") + len(b"speed_rpm") + 2
    rows = zlib.decompress(chunk[names:])
    edges, block = awkward_edges(), (FORMATS / "pump_block.bin").read_bytes()
    sketch = encode_sketch(make_sketch(edges, samples.frame.at_ms, awkward_rows(2, len(samples.frame))))
    plain_sketch = zlib.decompress(sketch[12:])
    arrays = encode_arrays({"rows": samples.frame.values, "at": samples.frame.at_ms})
    head, _, body = arrays[4:].partition(b"\n")
    channels = ("flow_m3_h", "pressure_bar", "speed_rpm")
    return [
        Target("column chunk", decode_chunk, bytes_maker([chunk, samples.chunk]), 0.6),
        Target("column chunk, bent inside", decode_chunk, with_outer(bytes_maker([rows]), lambda one: chunk[:names] + zlib.compress(one, 1)), 0.4),
        Target("edges", lambda data: decode_edges(data, NAMES), bytes_maker([encode_edges(edges)]), 0.2),
        Target("sketch", lambda data: decode_sketch(data, edges), bytes_maker([sketch]), 0.3),
        Target("sketch, bent inside", lambda data: decode_sketch(data, edges), with_outer(bytes_maker([plain_sketch]), lambda one: sketch[:12] + zlib.compress(one, 1)), 0.2),
        Target("pump block", lambda data: decode_block(data, channels), bytes_maker([block]), 0.5),
        Target("golden container", lambda data: decode_arrays(data, "golden", max_bytes=1 << 20), bytes_maker([arrays]), 0.5),
        Target("golden container head", lambda data: decode_arrays(data, "golden", max_bytes=1 << 20), json_maker([head], lambda one: b"PDA1" + one + b"\n" + body), 0.5),
    ]


def _records() -> list[Target]:
    states = [(FORMATS / "state" / name).read_bytes().partition(b"\n")[2] for name in ("state-1-active", "state-1-staged", "state-2-staged")]
    build = {"slot": "a", "sha256": "a" * 64, "version": "0.1.0", "serial": 1, "libraries": ""}
    slot = {"format": 1, "record": 1, "phase": "ACTIVE", "active": build, "tries": 0, "reason": "", "serial": 1, "keys": [], "failed": [], "counter": 0}
    plan = started(make_plan(4))
    figures = PumpFigures(1, "P-101A", "a" * 64, 5, 0, 1_700_000_000_000, 1.5)
    pump = canonical.encode({"bytes": dict.fromkeys(BLOBS, 0), "figures": figures})
    shadow = canonical.encode(shadow_file.ShadowFigures(1, "P-101A", "a" * 64, 5, ShadowSketch(5, 1, 1, 1, 9, 0.5, (1, 2)), 0, 0))
    report = {"passed": True, "reason": "", "self_test": None}
    return [
        Target("device state", lambda data: state.decode_state(data, "state"), json_maker(states, sealed)),
        Target("slot record", lambda data: slot_record.decode_record(data, "slot"), json_maker([json.dumps(slot).encode()], sealed)),
        Target("pump record", lambda data: decode_pump_record(data, "pump"), json_maker([pump], lambda one: b"PDP1 " + sealed(one + b"\n")), 0.5),
        Target("shadow record", lambda data: shadow_file.decode_shadow(data, "shadow"), json_maker([shadow], lambda one: b"PDW1 " + sealed(one + b"\n")), 0.5),
        Target("rollout", Rollout.parse, json_maker([plan.encode()]), 0.2),
        Target("trial report", trial.parse_report, json_maker([json.dumps(report).encode()])),
        Target("serve.json", decoder(serve_settings.ServeSettings, "serve.json"), json_maker([b'{"endpoint":{"port":1},"alarms":{"hook":["a"]},"mqtt":{"rows":[{"topic":"a/+","channels":{"v":"w"}}]},"save_every_s":5.0}'])),
    ]


def _conversation(samples: Samples) -> list[Target]:
    heads = [
        {"v": 1, "id": 1, "op": "hello", "console": "1", "workspace": "ws-1", "body_bytes": 0},
        {"v": 1, "id": 2, "op": "have", "digest": "a" * 64, "bytes": 70_000, "body_bytes": 64},
        {"v": 1, "id": 3, "op": "assign", "files": [{"name": "timestamp.json", "bytes": 12}], "body_bytes": 12},
    ]
    raw = [canonical.encode(head) for head in heads]

    def frames(data: bytes) -> object:
        decoding = rpc.FrameDecoder()
        found = []
        for at in range(0, len(data), 1000):
            found += decoding.feed(data[at : at + 1000])
        return found

    return [
        Target("rpc header", frames, json_maker(raw, framed), 1.5),
        Target("rpc bytes", frames, bytes_maker([framed(one) for one in raw])),
    ]


def _people(folder: Path) -> list[Target]:
    queries = [
        b"site:gannet type:esp drift>0.2 version<12 link:courier",
        b"(health>=stale or drift>0.25) and not label:test*",
        b'seen>2h criticality<=2 maker:"Northfield Pumps",ravn',
        b"P-101 or not (a b) group!=x at<2026-01-01T00:00:00Z",
    ]
    fleet, policies = folder / "fleet.toml", folder / "policies.toml"
    maker = folder / "northfield.toml"
    maker.write_bytes((DOCS / "maker.example.toml").read_bytes())
    example = (DOCS / "fleet.example.toml").read_bytes()
    makers = [read_toml(maker)]
    plain_maker = maker.read_bytes()
    bent_maker = folder / "bent" / "northfield.toml"
    bent_maker.parent.mkdir(exist_ok=True)
    fleet_text = folder / "honest.toml"
    fleet_text.write_bytes(example)
    honest = read_toml(fleet_text)
    pem = seeded_key(3).private_pem()
    keys = [pem, seeded_key(3).openssh_pem(), seeded_key(3).openssh_public.encode(), seeded_key(3).public_pem.encode()]
    identity = b"# key\nAGE-SECRET-KEY-1NM0Y4QZ3GJRHU45JJHKUT6L4U6T0MF4LR0YJ3LVXFXFJRAKKMP2SL6ASH6\n"
    return [
        Target("query", lambda data: str(query_language.parse_query(text_of(data))), bytes_maker(queries), 1.5),
        Target("fleet.toml", file_parser(fleet, lambda: parse_fleet(read_toml(fleet), makers)), bytes_maker([example]), 0.06),
        Target("makers/*.toml", file_parser(bent_maker, lambda: parse_fleet(honest, [read_toml(bent_maker)])), bytes_maker([plain_maker]), 0.04),
        Target("policies.toml", file_parser(policies, lambda: load_policies(folder)), bytes_maker([(DOCS / "policies.example.toml").read_bytes()]), 0.06),
        Target("private key", load_key, bytes_maker(keys[:2]), 0.2),
        Target("public key", lambda data: public_key_of(text_of(data)), bytes_maker(keys[2:]), 0.3),
        Target("age key file", lambda data: parse_identities(text_of(data), "key"), bytes_maker([identity]), 0.3),
    ]


def _rows(samples: Samples) -> list[Target]:
    head = b"POST /score HTTP/1.1\r\nHost: localhost:8377\r\nContent-Type: application/json\r\nContent-Length: 20\r\nConnection: close"
    rows = b'{"rows":[{"time":1700000000000,"pump":"P-101A","speed_rpm":5.5},{"time":"2026-01-01T00:00:00Z","pump":"p","speed_rpm":null}]}'
    csv = b"time,pump,pressure_bar,speed_rpm\n1700000000000,P-101A,1.5,\n2026-01-01T00:00:00Z,P-101A,2,\"3\"\n"
    lines = b'{"time":1700000000000,"pump":"P-101A","speed_rpm":1.5}\n{"time":"2026-01-01T00:00:00+01:00","pump":"P-101B","speed_rpm":null}\n'
    reader = RowReader([RowTopic("plc/p", "P-101A", "ts", "s"), RowTopic("h/#")], lambda tag: tag if tag == "P-101A" else None)

    def mqtt(data: bytes) -> object:
        topic = "plc/p" if data[:1] == b"0" else "h/x"
        return reader.read(Message(topic, data[1:], 5))

    message = b'[{"ts":1700000000.5,"time":1700000000000,"pump":"P-101A","speed_rpm":3}]'
    return [
        Target("http head", http_wire.parse_head, bytes_maker([head, b"GET /health HTTP/1.1\r\nHost: a"])),
        Target("http body", lambda data: row_request.parse_rows(data, lambda _tag: None), json_maker([rows])),
        Target("spool csv", lambda data: spool.parse_spool("a.csv", data), bytes_maker([csv]), 0.5),
        Target("spool jsonl", lambda data: spool.parse_spool("a.jsonl", data), bytes_maker([lines]), 0.5),
        Target("spool pdc", lambda data: spool.parse_spool("a.pdc", data), bytes_maker([encode_segment("P-101A", samples.frame)]), 0.5),
        Target("mqtt message", mqtt, json_maker([message], lambda one: bytes([48 + len(one) % 2]) + one)),
    ]
