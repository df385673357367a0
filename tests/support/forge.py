"""What a thief with some of the keys, or a stick in his hands, can make of a site's metadata."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from securesystemslib.formats import encode_canonical

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_packaging.signing import Ed25519Signer
from pumpdeck_packaging.verify import TrustState
from support.trust import SampleKeys, verify

Files = dict[str, bytes]
Change = Callable[[dict[str, Any]], None]


def name_of(files: Mapping[str, bytes], role: str) -> str:
    """The file of a role; for root the newest."""
    names = [name for name in files if name.endswith(f"{role}.json")]
    return sorted(names, key=lambda name: (len(name), name))[-1]


def signed_of(files: Mapping[str, bytes], role: str) -> dict[str, Any]:
    """The signed part of a role's file."""
    return dict(json.loads(files[name_of(files, role)])["signed"])


def metadata(signed: Mapping[str, Any], signers: Sequence[Ed25519Signer]) -> bytes:
    """A metadata file over `signed`, whatever it says."""
    payload = str(encode_canonical(dict(signed))).encode()
    signatures = [{"keyid": key.key_id, "sig": key.sign(payload).hex()} for key in signers]
    return canonical.encode({"signatures": signatures, "signed": signed})


def keys_for(keys: SampleKeys, role: str) -> list[Ed25519Signer]:
    """The honest signers of a role."""
    field = [keys.laptops[0]]
    return {"root": keys.root, "targets": [keys.targets], "release": keys.release}.get(role, field)


def edited(
    files: Files, keys: SampleKeys, role: str, change: Change, signers: Sequence[Ed25519Signer] | None = None
) -> Files:
    """The set with one role changed and signed by `signers` (else by its own keys), and everything above it made to fit.

    This is the strongest forgery: whoever holds these keys and the laptop's can make it.
    """
    result = dict(files)
    signed = signed_of(files, role)
    change(signed)
    old = name_of(files, role)
    del result[old]
    name = "timestamp.json" if role == "timestamp" else f"{signed['version']}.{role}.json"
    result[name] = metadata(signed, keys_for(keys, role) if signers is None else signers)
    if role == "snapshot":
        return _stamped(result, keys)
    return refitted(result, keys) if role in ("targets", "release", "deploy") else result


def refitted(files: Files, keys: SampleKeys) -> Files:
    """Snapshot and timestamp signed anew by the laptop over whatever stands below them."""
    laptop, result = [keys.laptops[0]], dict(files)
    snapshot = signed_of(files, "snapshot")
    for role in ("targets", "release", "deploy"):
        name = name_of(files, role)
        snapshot["meta"][f"{role}.json"] = _meta(signed_of(files, role)["version"], files[name])
    del result[name_of(files, "snapshot")]
    result[f"{snapshot['version']}.snapshot.json"] = metadata(snapshot, laptop)
    return _stamped(result, keys)


def _stamped(files: Files, keys: SampleKeys) -> Files:
    timestamp = signed_of(files, "timestamp")
    data = files[name_of(files, "snapshot")]
    timestamp["meta"]["snapshot.json"] = _meta(signed_of(files, "snapshot")["version"], data)
    return dict(files) | {"timestamp.json": metadata(timestamp, [keys.laptops[0]])}


def reassigned(files: Files, keys: SampleKeys, for_device: str, **changes: Any) -> Files:
    """The set with the content of this device's assignment changed, signed by the laptop."""
    plain = json.loads(files["assign.json"]) | changes
    data = canonical.encode({key: value for key, value in plain.items() if value is not None})
    result = dict(files) | {"assign.json": data}

    def point_at(signed: dict[str, Any]) -> None:
        signed["targets"][f"assign/{for_device}"] = {
            "custom": {"seq": plain["seq"]},
            "hashes": {"sha256": hashlib.sha256(data).hexdigest()},
            "length": len(data),
        }

    return edited(result, keys, "deploy", point_at)


def _meta(version: int, data: bytes) -> dict[str, Any]:
    return {"hashes": {"sha256": hashlib.sha256(data).hexdigest()}, "length": len(data), "version": version}


def refused(
    state: TrustState, files: Files, error: type[PumpdeckError], match: str = "", **more: object
) -> PumpdeckError:
    """Assert that the set is refused for that reason and that neither the device's state nor the set was touched."""
    before = (dict(state.kept), state.floor, dict(files))
    with pytest.raises(error, match=match or None) as caught:
        verify(state, files, **more)
    assert (dict(state.kept), state.floor, dict(files)) == before
    return caught.value
