"""The files of one site's trust repository, `trust/<site>/`, and what they hold once verified.

    metadata/   1.root.json ..  N.targets.json  N.release.json  N.deploy.json  N.snapshot.json  timestamp.json
    targets/    assign/<sha256>.<device>    (packages stay in the workspace's artifacts, by digest)
    provenance/ N.intoto.jsonl              (DSSE envelopes of what release N introduced)

`timestamp.json` is the word that counts: it names the snapshot, which names the rest, and the newest root. Every change
writes its versioned files first and the timestamp last, so a cut leaves the old state or the new one, whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tuf.api.metadata import TargetFile, Targets

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DamagedError, NotFoundError, TrustError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_fleet.core.receipts import ASSIGNMENT_MAX_BYTES, Assignment
from pumpdeck_packaging.bundle_layout import (
    DEPLOY,
    METADATA_MAX_BYTES,
    RELEASE,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    assignment_path,
    metadata_name,
    parse_metadata_name,
)
from pumpdeck_packaging.metadata_form import MetadataForm, parse_form
from pumpdeck_packaging.verify import TrustState, VerifiedSite, verify_site

_TIMESTAMP_NAME = f"{TIMESTAMP}.json"


class SiteFolder:
    """Reads, verifies, writes and prunes the files of a site. It decides nothing and holds no key."""

    def __init__(self, folder: Path, fs: FileSystem) -> None:
        self.site = folder.name
        self._fs = fs
        self._metadata = folder / "metadata"
        self._assign = folder / "targets" / "assign"
        self._provenance = folder / "provenance"

    @property
    def exists(self) -> bool:
        """True once the site was founded."""
        return self._fs.exists(self._metadata / _TIMESTAMP_NAME)

    def make(self) -> None:
        """Make the folders."""
        for folder in (self._metadata, self._assign, self._provenance):
            self._fs.mkdir(folder)

    def read(self, name: str) -> bytes:
        """The bytes of a metadata file.

        Raises:
            NotFoundError: it is not there.
            DamagedError: the medium failed while it was read.
        """
        limit = METADATA_MAX_BYTES[parse_metadata_name(name).role]
        try:
            return self._fs.read_bytes(self._metadata / name, limit)
        except FileNotFoundError as error:
            raise NotFoundError(
                "has no such metadata", f"{self.site} {name}", hint="found the site with: pumpdeck trust init"
            ) from error
        except OSError as error:
            raise DamagedError(f"cannot be read ({error.strerror or error})", f"{self.site} {name}") from error

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write metadata files whole; the timestamp, when given, comes last and makes the change count."""
        for name in sorted(files, key=lambda name: name == _TIMESTAMP_NAME):
            replace_file(self._fs, self._metadata / name, files[name])

    def write_provenance(self, version: int, envelopes: list[bytes]) -> None:
        """Write the envelopes of what a release version introduced, one a line."""
        replace_file(self._fs, self._provenance / f"{version}.intoto.jsonl", b"\n".join(envelopes) + b"\n")

    def read_provenance(self) -> list[bytes]:
        """Every provenance envelope of this site, oldest release first."""
        names = sorted(self._fs.listdir(self._provenance), key=lambda name: (len(name), name))
        lines = [self._fs.read_bytes(self._provenance / name, 64 * 1024 * 1024).splitlines() for name in names]
        return [line for several in lines for line in several]

    def provenance_names(self) -> list[str]:
        """Names of the files that hold provenance envelopes."""
        return [name for name in self._fs.listdir(self._provenance) if name.endswith(".intoto.jsonl")]

    def provenance_file(self, name: str) -> bytes:
        """The bytes of such a file; each line is proven by its own signature when it is used."""
        return self._fs.read_bytes(self._provenance / name, 64 * 1024 * 1024)

    def current_files(self, since_root: int = 0) -> list[tuple[str, bytes]]:
        """Name and bytes of the metadata that counts now, with the roots after `since_root`.

        Raises:
            NotFoundError: the site was not founded, or a file is missing.
            DamagedError: a file has not the form of metadata.
        """
        timestamp = parse_form(_TIMESTAMP_NAME, self.read(_TIMESTAMP_NAME))
        newest_root = timestamp.own.root or 1
        files = []
        for version in range(since_root + 1, newest_root + 1):
            files.append((metadata_name(ROOT, version), self.read(metadata_name(ROOT, version))))
        name = metadata_name(SNAPSHOT, _named_version(timestamp, SNAPSHOT))
        snapshot = parse_form(name, self.read(name))
        files += [(timestamp.name, timestamp.data), (snapshot.name, snapshot.data)]
        for role in (TARGETS, RELEASE, DEPLOY):
            name = metadata_name(role, _named_version(snapshot, role))
            files.append((name, self.read(name)))
        return files

    def newest_root(self) -> bytes:
        """The newest root that counts.

        Raises:
            NotFoundError: the site was not founded.
        """
        timestamp = parse_form(_TIMESTAMP_NAME, self.read(_TIMESTAMP_NAME))
        return self.read(metadata_name(ROOT, timestamp.own.root or 1))

    def verified(self, now_ms: int) -> VerifiedSite:
        """What counts now, verified like on a device from the first root on.

        Raises:
            NotFoundError, TrustError, DamagedError: the repository is not there or does not hold.
        """
        state = TrustState("console", self.site, self.read(metadata_name(ROOT, 1)))
        return verify_site(state, dict(self.current_files()), now_ms=now_ms, clock_synced=False)

    def newest_release(self, site: VerifiedSite) -> tuple[MetadataForm, Targets]:
        """The newest release that is signed as it should be; the snapshot may not name it yet.

        One that does not hold is passed over: its key was revoked since, or a cut left it without the targets that name its keys.
        """
        names = [name for name in self._fs.listdir(self._metadata) if name.endswith(f".{RELEASE}.json")]
        versions = sorted((parse_metadata_name(name).version for name in names), reverse=True)
        for version in versions:
            if version <= site.forms[RELEASE].version:
                break
            with suppress(TrustError, DamagedError):
                form = parse_form(metadata_name(RELEASE, version), self.read(metadata_name(RELEASE, version)))
                return form, site.trusted.check_delegated(form)
        return site.forms[RELEASE], site.trusted.delegated(RELEASE)

    def assignment_bytes(self, device: str, deploy: Targets) -> bytes | None:
        """The assignment of a device as `deploy` names it; None when it has none.

        Raises:
            NotFoundError: it is named but not there.
        """
        target = deploy.targets.get(assignment_path(device))
        if target is None:
            return None
        path = self._assign / _stored_name(target)
        try:
            return self._fs.read_bytes(path, ASSIGNMENT_MAX_BYTES)
        except FileNotFoundError as error:
            raise NotFoundError("is assigned, but its file is gone", f"{self.site} {device}") from error
        except OSError as error:
            raise DamagedError(f"cannot be read ({error.strerror or error})", f"{self.site} {path.name}") from error

    def assignment(self, device: str, deploy: Targets) -> Assignment | None:
        """As `assignment_bytes`, parsed."""
        data = self.assignment_bytes(device, deploy)
        if data is None:
            return None
        return canonical.decode(Assignment, data, f"assignment of {device}", max_bytes=ASSIGNMENT_MAX_BYTES)

    def write_assignment(self, target: TargetFile, data: bytes) -> None:
        """Write the file of an assignment target."""
        replace_file(self._fs, self._assign / _stored_name(target), data)

    def prune(self, before: VerifiedSite, deploy: Mapping[str, TargetFile]) -> None:
        """Remove what neither the present nor the state before it names; roots, targets and releases stay."""
        for name in self._fs.listdir(self._metadata):
            if name.endswith((f".{DEPLOY}.json", f".{SNAPSHOT}.json")):
                named = parse_metadata_name(name)
                if named.version < before.forms[named.role].version:
                    self._fs.unlink(self._metadata / name)
        both = (deploy, before.trusted.delegated(DEPLOY).targets)
        kept = {_stored_name(target) for targets in both for target in targets.values()}
        for name in self._fs.listdir(self._assign):
            if name not in kept:
                self._fs.unlink(self._assign / name)


def _stored_name(target: TargetFile) -> str:
    # TUF's consistent snapshot name: the digest stands before the last part of the target path.
    return target.get_prefixed_paths()[0].rpartition("/")[2]


def _named_version(form: MetadataForm, role: str) -> int:
    plain = canonical.parse_json(form.data, form.name, max_bytes=len(form.data))
    try:
        return int(plain["signed"]["meta"][f"{role}.json"]["version"])
    except (KeyError, TypeError, ValueError) as error:
        raise TrustError(f"does not name {role} metadata", form.name) from error
