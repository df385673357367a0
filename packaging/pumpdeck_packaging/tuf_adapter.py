"""python-tuf's trusted set with the reference time in our hands: the one importer of tuf's private module.

tuf reads the clock of the computer it runs on; a device's clock is not to be trusted (docs/adr/0004). The pin `tuf>=7.0.1,<8` and
`tests/package/test_tuf_contract.py` hold the private names used here in place. Bytes in, trusted metadata out, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from securesystemslib.signer import Signature
from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DigestMismatchError, FormatError, ReplayError, TrustError
from pumpdeck_packaging.bundle_layout import DEPLOY, RELEASE, ROOT, SNAPSHOT, TARGETS, TIMESTAMP
from pumpdeck_packaging.metadata_form import MetadataForm

SYNC_FIRST = "another laptop has signed since: merge with it first (pumpdeck sync), then assign again"
_LAST_MS = 253_402_300_799_000  # 9999-12-31T23:59:59Z, the end of datetime


class ExpiredError(TrustError):
    """Metadata whose time is provably over."""


class SameVersionError(ReplayError):
    """The version that is already trusted."""


class TrustedSet:
    """Metadata accepted so far, in TUF's order root, timestamp, snapshot, targets, delegated roles."""

    def __init__(self, root: MetadataForm, reference_ms: int) -> None:
        """Start from a root that is trusted as it stands.

        Raises:
            TrustError, FormatError: it does not even verify by itself.
        """
        self._set = plain_set(root.data, root.name, reference_ms)

    @property
    def root(self) -> Root:
        """The newest root."""
        return self._set.root

    @property
    def timestamp(self) -> Timestamp:
        """The newest timestamp."""
        return self._set.timestamp

    @property
    def snapshot(self) -> Snapshot:
        """The newest snapshot."""
        return self._set.snapshot

    @property
    def targets(self) -> Targets:
        """The top targets role."""
        return self._set.targets

    def delegated(self, role: str) -> Targets:
        """A delegated role that was added."""
        found = self._set[role]
        if not isinstance(found, Targets):
            raise FormatError("is not a targets role", role)
        return found

    def add_root(self, form: MetadataForm) -> None:
        """Accept the next root.

        Raises:
            TrustError: not signed by enough keys of the root before it and of itself.
            ReplayError: not the next version.
        """
        before = self.root
        with translated(form.name, form.version):
            self._set.update_root(form.data)
            _signers(form, ROOT, before, self.root)

    def add(self, form: MetadataForm, *, kept: bool = False) -> tuple[str, ...]:
        """Accept a role's metadata; returns the ids of the keys that signed it. `kept` marks what was accepted earlier.

        Raises:
            ExpiredError: its time is provably over; it may still stand as the one to compare newer ones with.
            SameVersionError: a timestamp of the version that is already trusted.
            ReplayError: older than what is trusted.
            TrustError: signatures, names or delegations do not hold.
            DigestMismatchError: not the bytes that a trusted role names.
        """
        with translated(form.name, form.version):
            if form.role == TIMESTAMP:
                self._set.update_timestamp(form.data)
            elif form.role == SNAPSHOT:
                self._set.update_snapshot(form.data, trusted=kept)
            elif form.role == TARGETS:
                self._set.update_targets(form.data)
            else:
                self._set.update_delegated_targets(form.data, form.role, TARGETS)
        return self.signers(form)

    def check_delegated(self, form: MetadataForm) -> Targets:
        """Metadata of a delegated role that is signed as `targets` demands, without adding it: no snapshot names it yet.

        Raises:
            TrustError: it is not.
        """
        with translated(form.name, form.version):
            metadata: Metadata[Targets] = Metadata.from_bytes(form.data)
            self.targets.verify_delegate(form.role, metadata.signed_bytes, metadata.signatures)
        self.signers(form)
        return metadata.signed

    def signers(self, form: MetadataForm) -> tuple[str, ...]:
        """The ids of the keys whose signatures on `form` hold.

        Raises:
            TrustError: a signature on it does not hold.
        """
        with translated(form.name, form.version):
            delegated = form.role in (RELEASE, DEPLOY)
            return _signers(form, form.role, self.targets if delegated else self.root)


def plain_set(root: bytes, name: str, reference_ms: int) -> TrustedMetadataSet:
    """python-tuf's own set, started from a root that is trusted as it stands; expiry is judged by `reference_ms`.

    Raises:
        TrustError, FormatError: the root does not even verify by itself.
    """
    with translated(name):
        started = TrustedMetadataSet(root, EnvelopeType.METADATA)
    started.reference_time = reference_time(reference_ms)
    return started


def reference_time(at_ms: int) -> datetime:
    """The moment that expiry is judged by, clamped to what a datetime holds."""
    return datetime.fromtimestamp(min(max(at_ms, 0), _LAST_MS) / 1000, UTC)


def signature_of(key_id: str, signature: bytes) -> Signature:
    """A TUF signature from a signer's bytes."""
    return Signature(key_id, signature.hex())


def _signers(form: MetadataForm, role: str, *delegators: Root | Targets) -> tuple[str, ...]:
    # TUF passes over signatures that do not hold once the threshold is met; here each one must, so a file has one form only.
    metadata: Metadata[Any] = Metadata.from_bytes(form.data)
    payload = metadata.signed_bytes
    if canonical.encode(metadata.to_dict()) != form.data:
        # strptime, for one, takes a date in small letters; what is verified would not be what stands in the file.
        raise FormatError("does not read back as it is written", form.name)
    held: set[str] = set()
    for delegator in delegators:
        held |= set(delegator.get_verification_result(role, payload, metadata.signatures).signed)
    stray = sorted(set(metadata.signatures) - held)
    if stray:
        raise TrustError("carries a signature that does not hold", form.name, found=f"key {stray[0][:12]}")
    return tuple(sorted(held))


@contextmanager
def translated(name: str, version: int | None = None) -> Iterator[None]:
    """Turn what tuf raises over the file `name` into our errors."""
    try:
        yield
    except tuf_errors.EqualVersionNumberError as error:
        raise SameVersionError("is the version already trusted", name, found=version) from error
    except tuf_errors.BadVersionNumberError as error:
        raise ReplayError(f"is older than what is trusted, or out of order ({error})", name, hint=SYNC_FIRST) from error
    except tuf_errors.ExpiredMetadataError as error:
        raise ExpiredError(f"has expired ({error})", name, hint="sign it again at headquarters") from error
    except tuf_errors.UnsignedMetadataError as error:
        raise TrustError(f"is not signed by enough trusted keys ({error})", name) from error
    except tuf_errors.LengthOrHashMismatchError as error:
        raise DigestMismatchError(f"is not the file that was signed for ({error})", name) from error
    except tuf_errors.RepositoryError as error:
        raise TrustError(f"does not fit together ({error})", name) from error
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise FormatError(f"is not metadata that can be verified ({error})", name) from error
