"""`pumpdeck-agent tuf-client`: the situations that the public tuf-conformance suite puts a client in, against a real HTTP server.

Each case asks for the exit code, for what the client trusts afterwards and, where order matters, for the requests it made.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Key

from support.tuf_client import Client
from support.tuf_repository import TOP, TufRepository, days_from_now, serving


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> TufRepository:
    return TufRepository(with_hashes=getattr(request, "param", False))


@pytest.fixture
def client(repository: TufRepository, tmp_path: Path) -> Iterator[Client]:
    with serving(repository) as address:
        made = Client(tmp_path / "client", address)
        assert made.init(repository.served["metadata/1.root.json"]) == 0
        yield made


def test_the_first_refresh_asks_for_root_timestamp_snapshot_targets(client: Client, repository: TufRepository) -> None:
    assert client.refresh() == 0
    assert repository.asked == ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]
    assert client.trusted() == {"root": 1, "snapshot": 1, "targets": 1, "timestamp": 1}
    repository.asked.clear()
    assert client.refresh() == 0
    assert repository.asked == ["2.root.json", "timestamp.json"]


def test_a_download_refreshes_first_and_fails_where_nothing_is_described(client: Client, repository: TufRepository) -> None:
    assert client.download("nonexistent") == 1
    assert repository.asked == ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]
    assert client.trusted() == {"root": 1, "snapshot": 1, "targets": 1, "timestamp": 1}


@pytest.mark.parametrize("fault", ["no version", "wrong signature", "not json", "empty"])
def test_an_invalid_first_root_ends_before_any_request(fault: str, client: Client, repository: TufRepository) -> None:
    plain = json.loads(repository.served["metadata/1.root.json"])
    if fault == "no version":
        del plain["signed"]["version"]
    plain["signatures"][0]["sig"] = "00" * 64
    data = {"not json": b"{", "empty": b""}.get(fault, json.dumps(plain).encode())
    client.init(data)
    assert client.refresh() == 1
    assert repository.asked == []


@dataclass(frozen=True)
class RootVersion:
    keys: tuple[int, ...]
    threshold: int
    signers: tuple[int, ...]


ROOTS: dict[str, tuple[list[RootVersion], bool]] = {
    "rotation": ([RootVersion((1,), 1, (1,)), RootVersion((2,), 1, (2, 1)), RootVersion((2,), 1, (2,))], True),
    "unused signatures": ([RootVersion((1,), 1, (3, 1, 4)), RootVersion((2,), 1, (3, 2, 1, 4))], True),
    "other combinations": ([RootVersion((0, 1, 2, 3, 4), 3, (0, 2, 4)), RootVersion((0, 1, 2, 3, 4), 3, (0, 4, 1))], True),
    "one of five rotated": ([RootVersion((0, 1, 2, 3, 4), 3, (0, 2, 4)), RootVersion((0, 1, 3, 4, 5), 3, (0, 4, 1))], True),
    "all rotated": (
        [RootVersion((0, 1, 2), 2, (0, 2)), RootVersion((5, 6, 7), 2, (0, 2, 5, 6)), RootVersion((5, 6, 7), 2, (5, 7))],
        True,
    ),
    "threshold raised": ([RootVersion((1, 2, 3), 1, (1,)), RootVersion((1, 2, 3), 2, (1, 2))], True),
    "threshold lowered": ([RootVersion((1, 2), 2, (1, 2)), RootVersion((1, 2), 1, (1, 2)), RootVersion((1, 2), 1, (1,))], True),
    "not by the old key": ([RootVersion((1,), 1, (1,)), RootVersion((2,), 1, (2, 3, 4))], False),
    "not by the new key": ([RootVersion((1,), 1, (1,)), RootVersion((2,), 1, (1, 3, 4))], False),
    "too few new": ([RootVersion((0, 1, 2, 3, 4), 3, (0, 2, 4)), RootVersion((0, 1, 3, 4, 5), 3, (0, 2, 4))], False),
    "too few old": ([RootVersion((0, 1, 2, 3, 4), 3, (0, 2, 4)), RootVersion((0, 1, 3, 4, 5), 3, (0, 4, 5))], False),
    "new threshold not reached": ([RootVersion((1, 2, 3), 1, (1,)), RootVersion((1, 2, 3), 2, (2,))], False),
    "old threshold not reached": ([RootVersion((1, 2), 2, (1, 2)), RootVersion((1, 2), 1, (1,))], False),
}


@pytest.mark.parametrize(("versions", "is_good"), ROOTS.values(), ids=ROOTS)
def test_root_chains(versions: list[RootVersion], is_good: bool, client: Client, repository: TufRepository) -> None:
    pool = [CryptoSigner.generate_ed25519() for _ in range(8)]
    repository.root.version = 0
    for version in versions:
        repository.root.roles["root"].keyids.clear()
        repository.root.roles["root"].threshold = version.threshold
        for index in version.keys:
            repository.root.add_key(pool[index].public_key, "root")
        repository.signers["root"] = [pool[index] for index in version.signers]
        repository.publish_root()
    assert client.init(repository.served["metadata/1.root.json"]) == 0
    assert client.refresh() == (0 if is_good else 1)
    last = len(versions) if is_good else len(versions) - 1
    assert (client.folder / "metadata" / "root.json").read_bytes() == repository.served[f"metadata/{last}.root.json"]
    assert is_good == ("timestamp" in client.trusted())


@pytest.mark.parametrize("role", TOP)
@pytest.mark.parametrize("is_signed_anew", [True, False])
def test_a_rotated_role_must_be_signed_by_its_new_key(
    role: str, is_signed_anew: bool, client: Client, repository: TufRepository
) -> None:
    assert client.refresh() == 0
    old = list(repository.signers[role])
    repository.new_keys(role)
    repository.publish_root()
    if not is_signed_anew:
        repository.signers[role] = old
    repository.publish_targets(bump=["targets"])
    before = client.trusted()
    assert client.refresh() == (0 if is_signed_anew else 1)
    assert client.version("root") == 2
    assert client.version(role) == (2 if is_signed_anew else before[role])


def test_a_threshold_counts_keys_and_not_names_of_one_key(client: Client, repository: TufRepository) -> None:
    signer = CryptoSigner.generate_ed25519()
    for index in range(4):
        twin = Key.from_dict(f"{index:064x}", signer.public_key.to_dict())
        repository.root.add_key(twin, "snapshot")
    repository.signers["snapshot"].append(signer)
    repository.root.roles["snapshot"].threshold = 4
    repository.publish_root()
    repository.publish_targets(bump=["targets"])
    assert client.refresh() == 1
    assert "snapshot" not in client.trusted()


@pytest.mark.parametrize(("threshold", "is_good"), [(5, True), (6, False)])
def test_a_threshold_is_reached_or_not(threshold: int, is_good: bool, client: Client, repository: TufRepository) -> None:
    for _ in range(4):
        repository.add_key("snapshot")
    repository.root.roles["snapshot"].threshold = threshold
    repository.root.unrecognized_fields["custom-field"] = {"a": [1, "b"]}
    repository.publish_root()
    repository.publish_targets(bump=["targets"])
    assert client.refresh() == (0 if is_good else 1)
    assert client.version("root") == 2
    assert ("snapshot" in client.trusted()) is is_good


def test_an_older_timestamp_is_refused(client: Client, repository: TufRepository) -> None:
    first = repository.served["metadata/timestamp.json"]
    repository.publish_timestamp()
    assert client.refresh() == 0
    repository.served["metadata/timestamp.json"] = first
    assert client.refresh() == 1
    assert client.version("timestamp") == 2
    assert repository.asked[-1] == "timestamp.json"


def test_a_timestamp_of_the_same_version_does_not_replace_the_kept_one(client: Client, repository: TufRepository) -> None:
    assert client.refresh() == 0
    kept = (client.folder / "metadata" / "timestamp.json").read_bytes()
    repository.signed["timestamp"].expires = days_from_now(5)
    repository.publish_timestamp(bump=False)
    assert client.refresh() == 0
    assert (client.folder / "metadata" / "timestamp.json").read_bytes() == kept


@pytest.mark.parametrize("repository", [False, True], indirect=True, ids=["versions", "hashes"])
@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_an_older_snapshot_or_targets_is_refused(role: str, client: Client, repository: TufRepository) -> None:
    repository.publish_targets(bump=["targets"])
    assert client.refresh() == 0
    repository.signed[role].version = 1
    if role == "snapshot":
        repository.publish_snapshot(bump=False)
        repository.publish_timestamp()
    else:
        repository.publish_targets()
        repository.publish_snapshot()
    assert client.refresh() == 1
    assert client.version(role) == 2


@pytest.mark.parametrize("role", TOP)
def test_a_fast_forwarded_role_comes_back_after_new_keys(role: str, client: Client, repository: TufRepository) -> None:
    repository.signed[role].version = 999
    repository.publish_targets(bump=["targets"] if role == "targets" else ())
    if role == "snapshot":
        repository.publish_timestamp()
    assert client.refresh() == 0
    assert client.version(role) >= 999
    for renewed in ("snapshot", "timestamp"):
        repository.new_keys(renewed)
    repository.publish_root()
    repository.signed[role].version = 1
    repository.publish_targets()
    repository.publish_timestamp() if role != "timestamp" else None
    assert client.refresh() == 0
    assert client.version(role) == 1


def test_a_snapshot_of_another_version_than_the_timestamp_names_is_refused(client: Client, repository: TufRepository) -> None:
    repository.signed["snapshot"].version = 2
    repository._put("snapshot", versioned=True)
    repository.served["metadata/1.snapshot.json"] = repository.served["metadata/2.snapshot.json"]
    assert client.refresh() == 1
    assert client.trusted() == {"root": 1, "timestamp": 1}


@pytest.mark.parametrize("repository", [True], indirect=True)
def test_targets_that_differ_from_the_signed_hash_are_refused(client: Client, repository: TufRepository) -> None:
    assert client.refresh() == 0
    repository.publish_targets(bump=["targets"])
    repository.targets().unrecognized_fields["x"] = 1
    repository._put("targets", versioned=True)
    assert client.refresh() == 1
    assert client.version("targets") == 1


@pytest.mark.parametrize("role", ["root", *TOP])
def test_expired_metadata_is_refused(role: str, client: Client, repository: TufRepository) -> None:
    assert client.refresh() == 0
    repository.signed[role].expires = days_from_now(-1)
    repository.publish_root()
    repository.publish_targets(bump=["targets"])
    assert client.refresh() == 1
    # The root is kept first and judged afterwards (5.3.10).
    assert client.version("root") == 2
    for later in TOP[: TOP.index(role) + 1] if role != "root" else TOP:
        assert client.version(later) == 1


def test_an_expired_kept_timestamp_still_leads_to_a_newer_one(client: Client, repository: TufRepository) -> None:
    assert client.refresh() == 0
    repository.signed["timestamp"].expires = days_from_now(-1)
    repository.publish_timestamp()
    (client.folder / "metadata" / "timestamp.json").write_bytes(repository.served["metadata/timestamp.json"])
    assert client.refresh() == 1
    repository.signed["timestamp"].expires = days_from_now(3)
    repository.publish_targets(bump=["targets"])
    assert client.refresh() == 0
    assert client.version("timestamp") == 3


GRAPHS: dict[str, tuple[list[tuple[str, str, str, bool]], list[str]]] = {
    "one": ([("targets", "A", "*", False)], ["A"]),
    "two": ([("targets", "A", "*", False), ("targets", "B", "*", False)], ["A", "B"]),
    "depth first": (
        [("targets", "A", "*", False), ("targets", "B", "*", False), ("A", "C", "*", False), ("C", "D", "*", False)],
        ["A", "C", "D", "B"],
    ),
    "terminating": (
        [("targets", "A", "*", False), ("targets", "B", "*", False), ("A", "C", "*", True), ("A", "D", "*", False)],
        ["A", "C"],
    ),
    "terminating, its own children": (
        [("targets", "A", "*", False), ("targets", "B", "*", False), ("A", "C", "*", True), ("C", "D", "*", False)],
        ["A", "C", "D"],
    ),
    "paths": (
        [("targets", "A", "*.py", False), ("targets", "B", "*", False), ("A", "C", "*", False)],
        ["B"],
    ),
    "cycle": (
        [("targets", "A", "*", False), ("targets", "B", "*", False), ("B", "C", "*", False), ("C", "B", "*", False)],
        ["A", "B", "C"],
    ),
    "two ways to one role": (
        [("targets", "A", "*", False), ("targets", "B", "*", False), ("B", "C", "*", False), ("A", "C", "*.py", False)],
        ["A", "B", "C"],
    ),
}


@pytest.mark.parametrize(("edges", "order"), GRAPHS.values(), ids=GRAPHS)
def test_delegations_are_walked_in_order(
    edges: list[tuple[str, str, str, bool]], order: list[str], client: Client, repository: TufRepository
) -> None:
    for delegator, name, path, is_terminating in edges:
        repository.delegate(delegator, DelegatedRole(name, [], 1, is_terminating, [path]))
    repository.publish_targets(bump=["targets"])
    assert client.download("missing") == 1
    assert repository.asked[4:] == [f"1.{name}.json" for name in order]


@pytest.mark.parametrize(("path", "visited"), [("readme.md", ["A"]), ("releases/x/v1", ["B", "C"]), ("releases/z/v1", ["B"])])
def test_a_target_counts_only_where_every_role_on_the_way_delegates_it(
    path: str, visited: list[str], client: Client, repository: TufRepository
) -> None:
    repository.delegate("targets", DelegatedRole("A", [], 1, False, ["*.md"]))
    repository.delegate("targets", DelegatedRole("B", [], 1, False, ["releases/*/*"]))
    repository.delegate("B", DelegatedRole("C", [], 1, False, ["releases/x/*"]))
    for role, name in (("A", "readme.md"), ("C", "releases/x/v1"), ("C", "releases/z/v1")):
        repository.add_target(name, f"{role} {name}".encode(), role)
    repository.publish_targets(bump=["targets"])
    is_found = path != "releases/z/v1"
    assert client.download(path) == (0 if is_found else 1)
    assert [name for name in repository.asked[4:] if not name.startswith("targets/")] == [f"1.{name}.json" for name in visited]
    assert client.downloads() == ([f"{visited[-1]} {path}".encode()] if is_found else [])


@pytest.mark.parametrize(("role", "quoted"), [("?", "%3F"), ("#", "%23"), ("/d", "%2Fd"), ("../d", "..%2Fd")])
def test_unusual_role_names_stay_names(role: str, quoted: str, client: Client, repository: TufRepository) -> None:
    repository.delegate("targets", DelegatedRole(role, [], 1, False, ["*"]))
    repository.publish_targets(bump=["targets"])
    assert client.download("missing") == 1
    assert repository.asked[-1] == f"1.{quoted}.json"
    assert len(list((client.folder / "metadata").iterdir())) == 5
    assert sorted(place.name for place in client.folder.iterdir()) == ["first.json", "metadata", "targets"]


def test_downloads_follow_the_signed_content_and_nothing_else(client: Client, repository: TufRepository) -> None:
    repository.add_target("path/to/file.txt", b"first")
    repository.add_target("other.txt", b"other")
    repository.publish_targets(bump=["targets"])
    assert client.download("path/to/file.txt") == 0
    assert client.downloads() == [b"first"]
    asked = len(repository.asked)
    for name in [name for name in repository.served if name.startswith("targets/")]:
        repository.served[name] = b"evil!"
    assert client.download("path/to/file.txt") == 0
    assert client.download("other.txt") == 1
    assert client.downloads() == [b"first"]
    assert sum(name.startswith("targets/") for name in repository.asked[asked:]) == 1
    repository.add_target("path/to/file.txt", b"second")
    repository.publish_targets(bump=["targets"])
    assert client.download("path/to/file.txt") == 0
    assert client.downloads() == [b"second"]


def test_a_target_longer_than_signed_is_not_read_to_its_end(client: Client, repository: TufRepository) -> None:
    repository.add_target("file", b"x" * 100)
    repository.publish_targets(bump=["targets"])
    name = next(name for name in repository.served if name.startswith("targets/"))
    repository.served[name] = b"x" * 10_000_000
    assert client.download("file") == 1
    assert client.downloads() == []


@pytest.mark.parametrize("address", ["http://192.0.2.1:9/metadata", "https://127.0.0.1/m", "file:///etc/passwd", "nonsense"])
def test_nothing_but_this_computer_is_asked(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client = Client(tmp_path / "client", address)
    assert client.init(TufRepository().served["metadata/1.root.json"]) == 0
    assert client.refresh() == 1
    assert "this computer" in capsys.readouterr().err or not address.startswith("http://")


def test_it_is_a_command_that_says_in_one_line_what_is_wrong(client: Client, repository: TufRepository) -> None:
    del repository.served["metadata/timestamp.json"]
    done = subprocess.run(
        [sys.executable, "-m", "pumpdeck_agent.main", *client.words("refresh")], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "timestamp.json: is missing in the repository" in done.stderr
