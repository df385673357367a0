"""Releases that two people sign: what one person proposed and the other signed becomes assignable here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_console.operations.base import operation
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import RefusedError
from pumpdeck_fleet.core.ids import pump_id
from pumpdeck_fleet.core.ports import Signer
from pumpdeck_fleet.store.models import PackagePump, PackageRow
from pumpdeck_packaging.bundle_layout import RELEASE, SEALED_SUFFIX
from pumpdeck_packaging.package_reader import read_package
from pumpdeck_packaging.release_entries import PackageRelease
from pumpdeck_packaging.trust_proposal import (
    Proposal,
    check_time,
    lacks,
    make_proposal,
    merge_proposals,
    open_site,
    sign_proposal,
)

PENDING_FOLDER = "pending"


@dataclass(frozen=True, slots=True)
class ReleaseReport:
    """Packages that are assignable now, by site with the release version."""

    versions: Mapping[str, int]
    packages: tuple[PackageRow, ...]


def propose_release(workspace: Workspace, site: str, releases: Sequence[PackageRelease], signer: Signer) -> Path | None:
    """Write a release that further people must sign, signed by this one; the file, or None when all is released already.

    The same packages give the same file, so building again does not ask for signatures again.
    """
    from pumpdeck_console.operations.trust_changing import read_proposal, write_proposal  # deferred: it stands beside

    folder = workspace.root / PENDING_FOLDER
    part = workspace.trust(site).propose_release(releases, signer)
    if part is None:
        return None
    names = ", ".join(sorted(f"{one.device} {one.package.sha256[:12]}" for one in releases))
    now_ms = workspace.clock.now_ms()
    proposal = make_proposal([part], f"release for {site}: {names}", {signer.key_id: workspace.person}, now_ms)
    base = workspace.trust(site).base()
    path = folder / f"{site}-release-{base.release.version + 1}.json"
    if workspace.fs.exists(path):
        before = read_proposal(path)
        if _packages_in(before) == _packages_in(proposal) and now_ms <= before.good_until_ms:
            return path
    workspace.fs.mkdir(folder)
    write_proposal(path, sign_proposal(proposal, [signer], now_ms)[0])
    with workspace.store.atomic() as store:
        store.audit.append(workspace.actor, "package.propose", site, proposal.purpose[:500], {"proposal": proposal.id})
    return path


@operation("package.publish_release", runs_in="worker")
def publish_release(workspace: Workspace, *, files: Sequence[str]) -> ReleaseReport:
    """Take releases that enough people signed; from now on their packages can be assigned. Audited.

    Raises:
        RefusedError: signatures are lacking. TrustError: it was altered, or ran out. ConflictError: the site moved on.
        NotFoundError: a package of it does not lie in this workspace.
    """
    from pumpdeck_console.operations.trust_changing import read_proposal  # deferred: it stands beside

    proposal = merge_proposals([read_proposal(Path(file)) for file in files])
    check_time(proposal, workspace.clock.now_ms())
    if found := lacks(proposal):
        names = ", ".join(f"{proposal.holders.get(key, '')} {key[:12]}".strip() for key in found[0].keys)
        which = f"release for {found[0].site}"
        raise RefusedError("needs another person's signature", which, expected=f"{found[0].needs}: {names}", found=found[0].has)
    rows = {one.site: _rows(workspace, proposal, one.site) for one in proposal.sites}
    versions = {one.site: workspace.trust(one.site).publish_release(one) for one in proposal.sites}
    with workspace.store.atomic() as store:
        for row in (row for several in rows.values() for row in several):
            if store.packages.put(row):
                words = ", ".join(f"{model} v{number}" for model, number in sorted(row.versions.items()))
                digests = {"package": row.sha256, "proposal": proposal.id}
                store.audit.append(workspace.actor, "package.release", row.device, f"{words}, signed by two", digests)
    return ReleaseReport(versions, tuple(row for several in rows.values() for row in several))


def _packages_in(proposal: Proposal) -> set[str]:
    found: set[str] = set()
    for one in proposal.sites:
        release = open_site(one).release
        found |= set(release.targets) if release is not None else set()
    return found


def _rows(workspace: Workspace, proposal: Proposal, site: str) -> list[PackageRow]:
    """The packages that this release introduces, read back from the artifacts."""
    opened = open_site(next(one for one in proposal.sites if one.site == site))
    if opened.release is None or set(opened.proposal.parts) != {RELEASE}:
        raise RefusedError("is no release", f"proposal {proposal.id[:12]}", hint="a change of keys: pumpdeck trust publish")
    rows = []
    for path, target in sorted(opened.release.targets.items()):
        if int(target.custom["release"]) != opened.release.version:
            continue
        _, device, name = path.split("/")
        # What TUF signs of a confidential package is its ciphertext; what can be read here is the package inside.
        digest = name.removesuffix(SEALED_SUFFIX) if name.endswith(SEALED_SUFFIX) else str(target.hashes["sha256"])
        data = workspace.artifacts.get(digest)
        size = int(target.custom["unpacked_bytes"])
        manifest = read_package(data, expected_sha256=digest, max_unpacked_bytes=size).manifest
        models = {model.pump_type: model.model for model in manifest.models}
        numbers = target.custom["versions"]
        pumps = tuple(
            PackagePump(pump_id(site, one.tag), models[one.pump_type], int(numbers[models[one.pump_type]]), one.limit)
            for one in manifest.pumps
        )
        now_ms = workspace.clock.now_ms()
        rows.append(PackageRow(digest, device, site, len(data), size, now_ms, pumps))
    return rows
