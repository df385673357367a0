"""`pumpdeck-agent tuf-client` where a repository lacks something, signs twice, in another way or for another role, or runs out.

More situations of the public tuf-conformance suite; `test_conformance_suite.py` runs the suite itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, MetaFile, Snapshot, TargetFile

from pumpdeck_agent import tuf_client
from pumpdeck_fleet.core.clock import DAY_MS, SystemClock
from support.tuf_client import Client
from support.tuf_repository import TufRepository, days_from_now, serving


@pytest.fixture
def repository() -> TufRepository:
    return TufRepository()


@pytest.fixture
def client(repository: TufRepository, tmp_path: Path) -> Iterator[Client]:
    with serving(repository) as address:
        made = Client(tmp_path / "client", address)
        assert made.init(repository.served["metadata/1.root.json"]) == 0
        yield made


@pytest.mark.parametrize(
    ("missing", "asked", "left"),
    [
        ("timestamp", "timestamp.json", {"root": 1, "snapshot": 1, "targets": 1, "timestamp": 1}),
        ("snapshot", "2.snapshot.json", {"root": 1, "snapshot": 1, "targets": 1, "timestamp": 2}),
        ("targets", "2.targets.json", {"root": 1, "snapshot": 2, "targets": 1, "timestamp": 2}),
    ],
)
def test_what_verified_before_a_missing_file_is_kept(
    missing: str, asked: str, left: dict[str, int], client: Client, repository: TufRepository
) -> None:
    """Withheld: what is named and not served ends the refresh there."""
    assert client.refresh() == 0
    repository.publish_targets(bump=["targets"])
    del repository.served[f"metadata/{asked}"]
    assert client.refresh() == 1
    assert repository.asked[-1] == asked
    assert client.trusted() == left


@pytest.mark.parametrize(
    ("role", "left"),
    [("root", {"root": 1}), ("targets", {"root": 1, "snapshot": 2, "timestamp": 2})],
)
def test_a_file_of_another_version_than_its_name_says_is_refused(
    role: str, left: dict[str, int], client: Client, repository: TufRepository
) -> None:
    """Served as version 2 and signed as version 3."""
    if role == "root":
        repository.root.version = 2
        repository.publish_root()
        repository.served["metadata/2.root.json"] = repository.served.pop("metadata/3.root.json")
    else:
        repository.publish_targets(bump=["targets"])
        repository.targets().version = 3
        repository._put("targets", versioned=True)
        repository.served["metadata/2.targets.json"] = repository.served.pop("metadata/3.targets.json")
    assert client.refresh() == 1
    assert client.trusted() == left


def edited(repository: TufRepository, name: str, change: Callable[[dict[str, Any]], None]) -> bytes:
    """A served file with other signatures; what is signed stays."""
    plain = json.loads(repository.served[f"metadata/{name}"])
    change(plain)
    repository.served[f"metadata/{name}"] = json.dumps(plain, indent=1).encode()
    return repository.served[f"metadata/{name}"]


@pytest.mark.parametrize("signature", ["00" * 64, "", "zz"])
def test_one_good_signature_of_two_is_enough_for_a_threshold_of_one(
    signature: str, client: Client, repository: TufRepository
) -> None:
    """Two keys may sign the timestamp, one need; the other's signature does not hold, or is none."""
    repository.add_key("timestamp")
    repository.publish_root()
    repository.publish_timestamp()
    edited(repository, "timestamp.json", lambda plain: plain["signatures"][0].update(sig=signature))
    assert client.refresh() == 0
    assert client.version("timestamp") == 2


def test_one_key_that_signs_twice_is_refused(client: Client, repository: TufRepository) -> None:
    """The same signature stands there twice."""
    edited(repository, "1.snapshot.json", lambda plain: plain["signatures"].append(plain["signatures"][0]))
    assert client.refresh() == 1
    assert client.trusted() == {"root": 1, "timestamp": 1}


@pytest.mark.parametrize("make", [CryptoSigner.generate_ecdsa, CryptoSigner.generate_rsa, CryptoSigner.generate_ed25519])
def test_each_kind_of_key_of_the_specification_counts(
    make: Callable[[], CryptoSigner], client: Client, repository: TufRepository
) -> None:
    """A root that asks for two signatures, one of that kind; without it the next root is refused."""
    repository.add_key("root", make())
    repository.root.roles["root"].threshold = 2
    repository.publish_root()
    assert client.refresh() == 0
    assert client.version("root") == 2
    repository.publish_root()
    edited(repository, "3.root.json", lambda plain: plain["signatures"][1].update(sig=plain["signatures"][0]["sig"]))
    assert client.refresh() == 1
    assert client.version("root") == 2


def test_what_is_kept_is_what_was_served(client: Client, repository: TufRepository) -> None:
    """Byte for byte: digests of the kept file must fit."""
    served = edited(repository, "timestamp.json", lambda plain: None) + b" \n"
    repository.served["metadata/timestamp.json"] = served
    assert client.refresh() == 0
    assert (client.folder / "metadata" / "timestamp.json").read_bytes() == served


def test_a_snapshot_in_the_place_of_a_timestamp_is_refused(client: Client, repository: TufRepository) -> None:
    """Signed by a key that both roles have, and readable as a timestamp: its type alone tells."""
    snapshot = repository.signed["snapshot"]
    assert isinstance(snapshot, Snapshot)
    repository.add_key("snapshot", repository.signers["timestamp"][0])
    repository.publish_root()
    repository.publish_snapshot({"snapshot.json": MetaFile(1)})
    repository.served["metadata/timestamp.json"] = repository.served["metadata/2.snapshot.json"]
    assert client.refresh() == 1
    assert client.trusted() == {"root": 2}


def delegated(repository: TufRepository, expires_in_days: float = 30.0) -> None:
    """A role for `d/*` with two targets, not yet published."""
    repository.delegate("targets", DelegatedRole("d", [], 1, False, ["d/*"])).expires = days_from_now(expires_in_days)
    for name in ("d/first", "d/second"):
        repository.add_target(name, name.encode(), "d")


def test_a_role_that_vanishes_from_the_snapshot_is_a_rollback(client: Client, repository: TufRepository) -> None:
    """Rollback to nothing; with a new snapshot key it is the way out of a fast forward."""
    delegated(repository)
    repository.publish_targets(bump=["targets"])
    assert client.refresh() == 0
    snapshot = repository.signed["snapshot"]
    assert isinstance(snapshot, Snapshot)
    del snapshot.meta["d.json"]
    repository.publish_snapshot()
    assert client.refresh() == 1
    assert client.version("snapshot") == 2
    repository.new_keys("snapshot")
    repository.publish_root()
    repository.publish_snapshot()
    assert client.refresh() == 0
    assert client.version("snapshot") == 4


def test_a_delegation_that_stands_in_no_snapshot_is_not_fetched(client: Client, repository: TufRepository) -> None:
    """Mix and match: the role lies in the repository, and nothing says which version counts."""
    delegated(repository)
    repository.publish_targets(bump=["targets"])
    snapshot = repository.signed["snapshot"]
    assert isinstance(snapshot, Snapshot)
    del snapshot.meta["d.json"]
    repository.publish_snapshot()
    assert client.refresh() == 0
    repository.asked.clear()
    assert client.download("d/first") == 1
    assert repository.asked == ["2.root.json", "timestamp.json"]
    assert "d" not in client.trusted()


def test_a_delegated_role_that_has_run_out_describes_nothing(client: Client, repository: TufRepository) -> None:
    """Freeze of one delegated role, at first sight."""
    delegated(repository, expires_in_days=-1)
    repository.publish_targets(bump=["targets"])
    assert client.refresh() == 0
    assert client.download("d/first") == 1
    assert client.downloads() == []
    assert client.trusted() == {"root": 1, "snapshot": 2, "targets": 2, "timestamp": 2}


class Later(SystemClock):
    """The clock of this computer, 18 days on."""

    def now_ms(self) -> int:
        return super().now_ms() + 18 * DAY_MS


@pytest.mark.parametrize("is_renewed", [False, True])
def test_a_kept_delegated_role_runs_out_until_a_newer_one_comes(
    is_renewed: bool, client: Client, repository: TufRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Freeze of one delegated role, after it was kept."""
    delegated(repository, expires_in_days=7)
    repository.publish_targets(bump=["targets"])
    assert client.download("d/first") == 0
    if is_renewed:
        repository.targets("d").expires = days_from_now(21)
        repository.publish_targets(bump=["d"])
    monkeypatch.setattr(tuf_client, "SystemClock", Later)
    assert client.download("d/second") == (0 if is_renewed else 1)
    assert client.downloads() == [b"d/first", b"d/second"][: 1 + is_renewed]


def test_a_kept_root_that_has_run_out_leads_to_a_newer_one(
    client: Client, repository: TufRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock passes the end of the kept root; without its successor nothing is believed."""
    repository.root.expires = days_from_now(7)
    repository.publish_root()
    assert client.refresh() == 0
    monkeypatch.setattr(tuf_client, "SystemClock", Later)
    assert client.refresh() == 1
    repository.root.expires = days_from_now(21)
    repository.publish_root()
    assert client.refresh() == 0
    assert client.version("root") == 3


@pytest.mark.parametrize("kinds", [["sha256"], ["sha512"], ["sha256", "sha512"], ["unknown"]])
def test_a_target_counts_by_any_known_digest(kinds: list[str], client: Client, repository: TufRepository) -> None:
    """By one that nobody can compute it does not count."""
    is_known = kinds != ["unknown"]
    target = TargetFile.from_data("file", b"content", kinds if is_known else ["sha512"])
    if not is_known:
        target.hashes = {"unknown": target.hashes["sha512"]}
    repository.targets().targets["file"] = target
    for digest in target.hashes.values():
        repository.served[f"targets/{digest}.file"] = b"content"
    repository.publish_targets(bump=["targets"])
    assert client.download("file") == (0 if is_known else 1)
    assert client.downloads() == ([b"content"] if is_known else [])
    assert sum(name.startswith("targets/") for name in repository.asked) <= 1


def test_a_field_that_the_specification_dropped_changes_nothing(client: Client, repository: TufRepository) -> None:
    """`keyid_hash_algorithms` of a key once meant something."""
    signer = CryptoSigner.generate_ed25519()
    signer.public_key.unrecognized_fields["keyid_hash_algorithms"] = "md5"
    repository.root.roles["snapshot"].keyids.clear()
    repository.signers["snapshot"].clear()
    repository.add_key("snapshot", signer)
    repository.publish_root()
    repository.publish_snapshot()
    assert client.refresh() == 0
    assert client.version("snapshot") == 2
