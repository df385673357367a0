"""The table of all doors: trust, work, numbers, the device's own records, the conversation, what people and sensors hand in."""

from __future__ import annotations

import json
import zlib
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
from pumpdeck_fleet.core.receipts import (
    ShadowSketch,
)
from pumpdeck_fleet.core.rollout import Rollout
from pumpdeck_fleet.numeric.arrays import decode_arrays, encode_arrays
from pumpdeck_fleet.numeric.columns import decode_chunk, encode_chunk
from pumpdeck_fleet.numeric.detectors import decode_block
from pumpdeck_fleet.numeric.edges import decode_edges, encode_edges
from pumpdeck_fleet.numeric.sketch import decode_sketch, encode_sketch, make_sketch
from pumpdeck_fleet.services.inventory_file import parse_fleet
from pumpdeck_fleet.services.toml_file import read_toml
from pumpdeck_packaging.age_box import parse_identities
from pumpdeck_packaging.signing import load_key, public_key_of
from support.fuzz_foreign_doors import foreign_doors
from support.fuzz_samples import DOCS, FORMATS, Samples
from support.fuzz_targets import (
    Target,
    bytes_maker,
    decoder,
    file_parser,
    framed,
    json_maker,
    sealed,
    text_of,
    with_outer,
)
from support.fuzz_trust_doors import trust_doors
from support.fuzz_work_doors import work_doors
from support.golden_trust import seeded_key
from support.rollouts import make_plan, started
from support.sketch_rows import NAMES, awkward_edges, awkward_rows

_CHANNELS = ("pressure_bar", "speed_rpm")


def all_targets(folder: Path) -> list[Target]:
    """Every door; `folder` is for those that read files."""
    samples = Samples(folder)
    return [
        *trust_doors(samples, folder),
        *work_doors(samples, folder),
        *_numeric(samples),
        *_records(),
        *_conversation(samples),
        *_people(folder),
        *_rows(samples),
        *foreign_doors(folder),
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
        Target(
            "column chunk, bent inside",
            decode_chunk,
            with_outer(bytes_maker([rows]), lambda one: chunk[:names] + zlib.compress(one, 1)),
            0.4,
        ),
        Target("edges", lambda data: decode_edges(data, NAMES), bytes_maker([encode_edges(edges)]), 0.2),
        Target("sketch", lambda data: decode_sketch(data, edges), bytes_maker([sketch]), 0.3),
        Target(
            "sketch, bent inside",
            lambda data: decode_sketch(data, edges),
            with_outer(bytes_maker([plain_sketch]), lambda one: sketch[:12] + zlib.compress(one, 1)),
            0.2,
        ),
        Target("pump block", lambda data: decode_block(data, channels), bytes_maker([block]), 0.5),
        Target(
            "golden container",
            lambda data: decode_arrays(data, "golden", max_bytes=1 << 20),
            bytes_maker([arrays]),
            0.5,
        ),
        Target(
            "golden container head",
            lambda data: decode_arrays(data, "golden", max_bytes=1 << 20),
            json_maker([head], lambda one: b"PDA1" + one + b"\n" + body),
            0.5,
        ),
    ]


def _records() -> list[Target]:
    states = [
        (FORMATS / "state" / name).read_bytes().partition(b"\n")[2]
        for name in ("state-1-active", "state-1-staged", "state-2-staged")
    ]
    build = {"slot": "a", "sha256": "a" * 64, "version": "0.1.0", "serial": 1, "libraries": ""}
    slot = {
        "format": 1,
        "record": 1,
        "phase": "ACTIVE",
        "active": build,
        "tries": 0,
        "reason": "",
        "serial": 1,
        "keys": [],
        "failed": [],
        "counter": 0,
    }
    plan = started(make_plan(4))
    figures = PumpFigures(1, "P-101A", "a" * 64, 5, 0, 1_700_000_000_000, 1.5)
    pump = canonical.encode({"bytes": dict.fromkeys(BLOBS, 0), "figures": figures})
    shadow = canonical.encode(
        shadow_file.ShadowFigures(1, "P-101A", "a" * 64, 5, ShadowSketch(5, 1, 1, 1, 9, 0.5, (1, 2)), 0, 0)
    )
    report = {"passed": True, "reason": "", "self_test": None}
    return [
        Target("device state", lambda data: state.decode_state(data, "state"), json_maker(states, sealed)),
        Target(
            "slot record",
            lambda data: slot_record.decode_record(data, "slot"),
            json_maker([json.dumps(slot).encode()], sealed),
        ),
        Target(
            "pump record",
            lambda data: decode_pump_record(data, "pump"),
            json_maker([pump], lambda one: b"PDP1 " + sealed(one + b"\n")),
            0.5,
        ),
        Target(
            "shadow record",
            lambda data: shadow_file.decode_shadow(data, "shadow"),
            json_maker([shadow], lambda one: b"PDW1 " + sealed(one + b"\n")),
            0.5,
        ),
        Target("rollout", Rollout.parse, json_maker([plan.encode()]), 0.2),
        Target("trial report", trial.parse_report, json_maker([json.dumps(report).encode()])),
        Target(
            "serve.json",
            decoder(serve_settings.ServeSettings, "serve.json"),
            json_maker(
                [
                    b'{"endpoint":{"port":1},"alarms":{"hook":["a"]},"mqtt":{"rows":[{"topic":"a/+","channels":{"v":"w"}}]},"save_every_s":5.0}'
                ]
            ),
        ),
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
        Target(
            "fleet.toml",
            file_parser(fleet, lambda: parse_fleet(read_toml(fleet), makers)),
            bytes_maker([example]),
            0.06,
        ),
        Target(
            "makers/*.toml",
            file_parser(bent_maker, lambda: parse_fleet(honest, [read_toml(bent_maker)])),
            bytes_maker([plain_maker]),
            0.04,
        ),
        Target(
            "policies.toml",
            file_parser(policies, lambda: load_policies(folder)),
            bytes_maker([(DOCS / "policies.example.toml").read_bytes()]),
            0.06,
        ),
        Target("private key", load_key, bytes_maker(keys[:2]), 0.2),
        Target("public key", lambda data: public_key_of(text_of(data)), bytes_maker(keys[2:]), 0.3),
        Target("age key file", lambda data: parse_identities(text_of(data), "key"), bytes_maker([identity]), 0.3),
    ]


def _rows(samples: Samples) -> list[Target]:
    head = b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 20\r\nConnection: close"
    row = b'{"time":1700000000000,"pump":"P-101A","speed_rpm":1.5}'
    other = b'{"time":"2026-01-01T00:00:00+01:00","pump":"P-101B","speed_rpm":null}'
    rows, lines = b'{"rows":[' + row + b"," + other + b"]}", row + b"\n" + other + b"\n"
    csv = b'time,pump,pressure_bar,speed_rpm\n1700000000000,P-101A,1.5,\n2026-01-01T00:00:00Z,P-101A,2,"3"\n'
    reader = RowReader(
        [RowTopic("plc/p", "P-101A", "ts", "s"), RowTopic("h/#")], lambda tag: tag if tag == "P-101A" else None
    )

    def mqtt(data: bytes) -> object:
        topic = "plc/p" if data[:1] == b"0" else "h/x"
        return reader.read(Message(topic, data[1:], 5))

    message = b'[{"ts":1700000000.5,"time":1700000000000,"pump":"P-101A","speed_rpm":3}]'
    return [
        Target("http head", http_wire.parse_head, bytes_maker([head, b"GET /health HTTP/1.1\r\nHost: a"])),
        Target("http body", lambda data: row_request.parse_rows(data, lambda _tag: None), json_maker([rows])),
        Target("spool csv", lambda data: spool.parse_spool("a.csv", data), bytes_maker([csv]), 0.5),
        Target("spool jsonl", lambda data: spool.parse_spool("a.jsonl", data), bytes_maker([lines]), 0.5),
        Target(
            "spool pdc",
            lambda data: spool.parse_spool("a.pdc", data),
            bytes_maker([encode_segment("P-101A", samples.frame)]),
            0.5,
        ),
        Target("mqtt message", mqtt, json_maker([message], lambda one: bytes([48 + len(one) % 2]) + one)),
    ]
