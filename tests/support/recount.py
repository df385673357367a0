"""A second opinion on digests, signatures, packages and device folders, written from docs/formats.md alone.

Nothing here imports the product: a mistake in its readers must not be able to hide itself. A wrong byte is an AssertionError
or ValueError.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import lzma
import tarfile
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

RECEIPT_TYPE = "application/vnd.pumpdeck.receipt.v1+json"


def sha256(data: bytes) -> str:
    """Lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def canonical(value: Any) -> bytes:
    """Canonical JSON of plain values."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def key_id(public_pem: str) -> str:
    """securesystemslib's id of an Ed25519 key: the digest of its description."""
    raw = _key(public_pem).public_bytes(Encoding.Raw, PublicFormat.Raw)
    return sha256(canonical({"keytype": "ed25519", "keyval": {"public": raw.hex()}, "scheme": "ed25519"}))


def open_envelope(envelope: bytes, payload_type: str, public_pem: str) -> dict[str, Any]:
    """The payload of a DSSE envelope that this key, and no other, signed. Raises when it did not."""
    parts = json.loads(envelope)
    assert set(parts) == {"payload", "payloadType", "signatures"}, set(parts)
    assert parts["payloadType"] == payload_type, parts["payloadType"]
    assert [one["keyid"] for one in parts["signatures"]] == [key_id(public_pem)], "signed by another key"
    payload = base64.standard_b64decode(parts["payload"])
    kind = payload_type.encode("ascii")
    signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    for one in parts["signatures"]:
        _key(public_pem).verify(base64.standard_b64decode(one["sig"]), signed)
    told = json.loads(payload)
    assert isinstance(told, dict)
    return told


def _key(public_pem: str) -> Ed25519PublicKey:
    key = load_pem_public_key(public_pem.encode("ascii"))
    assert isinstance(key, Ed25519PublicKey)
    return key


def artifact(workspace: Path, digest: str) -> bytes:
    """The bytes of an artifact; raises when they are not those of the digest."""
    data = (workspace / "artifacts" / "sha256" / digest[:2] / digest).read_bytes()
    assert sha256(data) == digest, f"artifact {digest} holds other bytes"
    return data


def unpack(package: bytes) -> dict[str, bytes]:
    """Members of a package by path, each proven by the manifest's list."""
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress(package, lzma.FORMAT_XZ))) as tar:
        members = {one.name: tar.extractfile(one).read() for one in tar.getmembers() if one.isfile()}  # type: ignore[union-attr]
    check_manifest(members)
    return members


def check_manifest(members: dict[str, bytes]) -> dict[str, Any]:
    """The manifest, once it lists exactly the other members with their true sizes and digests."""
    manifest = json.loads(members["manifest.json"])
    listed = {path: (one["bytes"], one["digest"]) for path, one in manifest["files"].items()}
    found = {path: (len(data), sha256(data)) for path, data in members.items() if path != "manifest.json"}
    assert listed == found
    assert isinstance(manifest, dict)
    return manifest


def folder_members(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its path with `/`."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def device_state(root: Path) -> dict[str, Any]:
    """The newest whole record of a device's two state copies."""
    states = []
    for name in ("state.0", "state.1"):
        digest, _, body = (root / name).read_bytes().partition(b"\n")
        if sha256(body).encode("ascii") == digest:
            states.append(json.loads(body))
    state = max(states, key=lambda one: one["record"])
    assert isinstance(state, dict)
    return state


def device_figures(root: Path) -> dict[str, dict[str, Any]]:
    """What a device's own pump records say, by tag."""
    found = {}
    for path in sorted((root / "spool" / "state").glob("*.bin")):
        magic, _, rest = path.read_bytes().partition(b"\n")
        assert magic == b"PDP1 " + sha256(rest).encode("ascii"), f"{path} is damaged"
        figures = json.loads(rest.partition(b"\n")[0])["figures"]
        found[figures["tag"]] = figures
    return found
