"""Where a package came from: an in-toto Statement with SLSA provenance v1, unsigned inside the package, signed beside it.

The statement inside names every payload file; it holds no key, time or run, so the package's bytes do not depend on who built it.
The one beside it names the package itself as well and is signed by the release key as a DSSE envelope (docs/adr/0003).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import STATEMENT_TYPE_URI, Statement

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError, TrustError
from pumpdeck_fleet.core.ports import Signer
from pumpdeck_fleet.core.registry import Lineage
from pumpdeck_packaging.signing import IN_TOTO_PAYLOAD_TYPE, sign_dsse, verify_dsse

PROVENANCE_NAME = "provenance.json"
PROVENANCE_MAX_BYTES = 256 * 1024
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:pumpdeck:training-pipeline:1"
BUILDER_ID = "urn:pumpdeck:package-builder:1"


@dataclass(frozen=True, slots=True)
class TrainedFrom:
    """The lineage of one pump type's model. source: digest of the file it was imported from; empty: it was learned here."""

    pump_type: str
    lineage: Lineage
    source: str = ""


def package_statement(
    device: str, device_class: str, files: Mapping[str, bytes], trained: tuple[TrainedFrom, ...]
) -> bytes:
    """The unsigned Statement that goes into a package, as canonical JSON.

    Git commit and state stay in the registry: the code digest already says which code ran, and a commit that changes none of it
    must not change the package.

    Raises:
        FormatError: it would not be a valid in-toto Statement (a digest is missing).
    """
    materials = [item for one in trained for item in _materials(one)]
    statement = {
        "_type": STATEMENT_TYPE_URI,
        "subject": [_resource(path, canonical.digest(data)) for path, data in sorted(files.items())],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "device": device,
                    "device_class": device_class,
                    "seeds": {one.pump_type: str(one.lineage.seed) for one in trained},
                },
                "resolvedDependencies": materials,
            },
            "runDetails": {"builder": {"id": BUILDER_ID}},
        },
    }
    _validate(statement, PROVENANCE_NAME)
    return canonical.encode(statement)


def sign_provenance(statement: bytes, package_sha256: str, signer: Signer) -> bytes:
    """The DSSE envelope that travels beside a package: the Statement with the package as one more subject, signed.

    Raises:
        FormatError: `statement` is not one.
    """
    plain = _parse(statement)
    plain["subject"] = [*plain["subject"], _resource(f"{package_sha256}.tar.xz", package_sha256)]
    _validate(plain, "provenance")
    return sign_dsse(canonical.encode(plain), IN_TOTO_PAYLOAD_TYPE, signer)


def verify_provenance(envelope: bytes, package_sha256: str, release_keys: Mapping[str, str]) -> Mapping[str, Any]:
    """The Statement of a package, after the signature held and the package is among its subjects.

    Raises:
        TrustError: another key, another package, or a signature that does not hold.
        FormatError: not an envelope with a Statement in it.
    """
    payload = verify_dsse(envelope, IN_TOTO_PAYLOAD_TYPE, release_keys, PROVENANCE_MAX_BYTES)
    plain = _parse(payload)
    subjects = {item["digest"].get("sha256") for item in plain["subject"]}
    if package_sha256 not in subjects:
        raise TrustError("is about another package", "provenance", expected=package_sha256)
    return plain


def _parse(statement: bytes) -> dict[str, Any]:
    plain = canonical.parse_json(statement, "provenance", max_bytes=PROVENANCE_MAX_BYTES)
    _validate(plain, "provenance")
    return dict(plain)


def _validate(plain: Any, what: str) -> None:
    try:
        message = json_format.ParseDict(plain, statement_pb2.Statement())
        Statement.copy_from_pb(message).validate()
        json_format.ParseDict(plain["predicate"], provenance_pb2.Provenance())
    except (json_format.ParseError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"is not an in-toto Statement with SLSA provenance ({error})", what) from error


def _resource(name: str, digest: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": digest}}


def _materials(one: TrainedFrom) -> list[dict[str, Any]]:
    lineage = one.lineage
    parts = {
        "code": lineage.code_digest,
        "lock": lineage.lock_digest,
        "pipeline": lineage.pipeline_digest,
        "snapshot": lineage.snapshot_digest,
        **({"source": one.source} if one.source else {}),
    }
    return [_resource(f"{one.pump_type}/{name}", digest) for name, digest in sorted(parts.items())]
