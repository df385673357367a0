"""The bytes of a signed statement, of whose keys are whose, and of the word on a backup, as other versions will read them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.statements import STATEMENT_PAYLOAD_TYPE, Kind, Statement, parse_statement
from pumpdeck_packaging.backup import BackupFile, BackupHead, BackupList
from pumpdeck_packaging.backup_word import check_word, sign_backup
from pumpdeck_packaging.people import PEOPLE_FIELD, people_fields, people_in
from pumpdeck_packaging.signing import sign_dsse, verify_dsse
from support.golden_trust import seeded_key

GOLDEN = Path(__file__).parents[1] / "golden" / "formats" / "statements"
KEY = seeded_key(70)
APPROVAL = Statement(
    1, Kind.APPROVAL, "r0001-00000a", ("gannet",), {"plan": "a" * 64, "actor": "actor-0123456789ab", "at_ms": "1770000000000"},
    "ws-00000000000a", "actor-0123456789ab", 7, 1_770_000_000_000,
)  # fmt: skip
LISTED = BackupList(
    1, "ws-00000000000a", 1_770_000_000_000, {"ws-00000000000a": BackupHead(12, "b" * 64)},
    {"fleet.toml": BackupFile(10, "c" * 64), "pumpdeck.db": BackupFile(4096, "d" * 64)},
)  # fmt: skip


def files() -> dict[str, bytes]:
    return {
        "approval.dsse.json": sign_dsse(canonical.encode(APPROVAL), STATEMENT_PAYLOAD_TYPE, KEY),
        "backup.dsse.json": sign_backup(LISTED, KEY),
        "people.json": canonical.encode(people_fields({KEY.key_id: f"p-{KEY.key_id[:12]}"}, {KEY.key_id})),
    }


@pytest.mark.parametrize("name", sorted(files()))
def test_the_bytes_are_those_that_were_agreed_on(name: str) -> None:
    data = files()[name]
    if os.environ.get("UPDATE_GOLDEN"):
        (GOLDEN / name).write_bytes(data)
    assert (GOLDEN / name).read_bytes() == data


def test_what_stands_there_reads_back() -> None:
    keys = {KEY.key_id: KEY.public_pem}
    payload = verify_dsse((GOLDEN / "approval.dsse.json").read_bytes(), STATEMENT_PAYLOAD_TYPE, keys, 65_536)
    assert parse_statement(payload) == APPROVAL
    assert check_word((GOLDEN / "backup.dsse.json").read_bytes(), LISTED, keys) == KEY.key_id


def test_whose_keys_are_whose_reads_back() -> None:
    class Targets:
        unrecognized_fields = canonical.parse_json((GOLDEN / "people.json").read_bytes(), "people", max_bytes=4096)

    assert set(Targets.unrecognized_fields) == {PEOPLE_FIELD}
    assert people_in(Targets()) == {KEY.key_id: f"p-{KEY.key_id[:12]}"}  # type: ignore[arg-type]
    assert people_fields({KEY.key_id: "p-000000000000"}, ()) == {}
