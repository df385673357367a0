"""A TUF repository of any shape on a loopback HTTP server, to test the client workflow. Nothing of ours signs or serves it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

TOP = ("targets", "snapshot", "timestamp")


def days_from_now(days: float) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)


@dataclass
class TufRepository:
    """Metadata in memory: change `signed[role]` or `signers[role]`, then publish. `asked` lists what was requested of it."""

    with_hashes: bool = False
    signed: dict[str, Root | Timestamp | Snapshot | Targets] = field(default_factory=dict)
    signers: dict[str, list[CryptoSigner]] = field(default_factory=dict)
    served: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        root, expires = Root(expires=days_from_now(30)), days_from_now(30)
        self.signed = {"root": root, "targets": Targets(expires=expires), "snapshot": Snapshot(expires=expires)}
        self.signed["timestamp"] = Timestamp(expires=expires)
        for role in ("root", *TOP):
            self.add_key(role)
        self._put("root", versioned=True)
        self.publish_targets()

    @property
    def root(self) -> Root:
        found = self.signed["root"]
        assert isinstance(found, Root)
        return found

    def add_key(self, role: str, signer: CryptoSigner | None = None) -> CryptoSigner:
        """A key that the root names for `role` and that signs it from now on."""
        signer = signer or CryptoSigner.generate_ed25519()
        self.root.add_key(signer.public_key, role)
        self.signers.setdefault(role, []).append(signer)
        return signer

    def new_keys(self, role: str) -> None:
        self.root.roles[role].keyids.clear()
        self.signers[role].clear()
        self.add_key(role)

    def delegate(self, delegator: str, role: DelegatedRole) -> Targets:
        """`role` under `delegator`, with a key of its own; its targets are made when they are new."""
        parent = self.targets(delegator)
        if parent.delegations is None:
            parent.delegations = Delegations({}, roles={})
        assert parent.delegations.roles is not None
        parent.delegations.roles[role.name] = role
        signer = CryptoSigner.generate_ed25519()
        parent.add_key(signer.public_key, role.name)
        self.signers.setdefault(role.name, []).append(signer)
        self.signed.setdefault(role.name, Targets(expires=days_from_now(30)))
        return self.targets(role.name)

    def targets(self, role: str = "targets") -> Targets:
        found = self.signed[role]
        assert isinstance(found, Targets)
        return found

    def add_target(self, path: str, data: bytes, role: str = "targets") -> None:
        target = TargetFile.from_data(path, data, ["sha256"])
        self.targets(role).targets[path] = target
        folder, slash, name = path.rpartition("/")
        self.served[f"targets/{folder}{slash}{target.hashes['sha256']}.{name}"] = data

    def publish_root(self) -> None:
        self.root.version += 1
        self._put("root", versioned=True)

    def publish_targets(self, bump: Iterable[str] = ()) -> None:
        """Targets roles, then the snapshot and timestamp that name them."""
        for role in bump:
            self.targets(role).version += 1
        names = [role for role in self.signed if role not in ("root", "snapshot", "timestamp")]
        for role in names:
            self._put(role, versioned=True)
        self.publish_snapshot({f"{role}.json": self._named(role) for role in names}, bump=bool(list(bump)))

    def publish_snapshot(self, meta: dict[str, MetaFile] | None = None, *, bump: bool = True) -> None:
        snapshot = self.signed["snapshot"]
        assert isinstance(snapshot, Snapshot)
        snapshot.meta = meta or snapshot.meta
        snapshot.version += int(bump)
        self._put("snapshot", versioned=True)
        self.publish_timestamp(bump=bump)

    def publish_timestamp(self, *, bump: bool = True) -> None:
        timestamp = self.signed["timestamp"]
        assert isinstance(timestamp, Timestamp)
        timestamp.snapshot_meta = self._named("snapshot")
        timestamp.version += int(bump)
        self._put("timestamp", versioned=False)

    def _named(self, role: str) -> MetaFile:
        version = self.signed[role].version
        if not self.with_hashes:
            return MetaFile(version)
        return MetaFile.from_data(version, self.served[f"metadata/{version}.{role}.json"], ["sha256"])

    def _put(self, role: str, *, versioned: bool) -> None:
        metadata = Metadata(self.signed[role])
        for signer in self.signers[role]:
            metadata.sign(signer, append=True)
        name = f"{self.signed[role].version}.{role}.json" if versioned else f"{role}.json"
        self.served[f"metadata/{name}"] = metadata.to_bytes()


@contextmanager
def serving(repository: TufRepository) -> Iterator[str]:
    """The base address of a loopback server that hands out `repository` as it stands at each request."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.lstrip("/")
            repository.asked.append(path.removeprefix("metadata/"))
            data = repository.served.get(unquote(path))
            self.send_response(200 if data is not None else 404)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
