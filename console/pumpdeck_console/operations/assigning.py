"""The trust repositories as the delivery sees them: signs assignments site by site, hands out the files that prove them."""

from __future__ import annotations

from collections.abc import Sequence

from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import NotFoundError
from pumpdeck_fleet.core.ports import Signer
from pumpdeck_fleet.core.receipts import Assignment
from pumpdeck_packaging.trust_repository import AssignmentRequest, SiteTrust


class SiteAssigner:
    """`services.deploy_delivery.Assigner` over the workspace's trust repositories and this person's deploy key.

    Remembers what it has read until it signs itself: whoever uses it holds the workspace's delivery lock.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._sites: dict[str, SiteTrust] = {}
        self._signers: dict[str, Signer] = {}
        self._files: dict[str, dict[str, list[tuple[str, bytes]]]] = {}

    def assign(self, site: str, assignments: Sequence[Assignment]) -> None:
        """Sign these assignments in one step and keep them durably.

        Raises:
            NotFoundError: no deploy key on this computer, or the site has no trust repository.
            TrustError: not a key of this site, or a package was not released for its device.
        """
        if site not in self._signers:
            self._signers[site] = self._workspace.signing_key("deploy", site).signer
        shelf = self._workspace.downgrades(site)
        requests = [
            AssignmentRequest(
                device=one.device,
                package_sha256=one.package_sha256,
                task=one.task,
                soft_until_ms=one.soft_until_ms,
                seq=one.seq,
                issued_at_ms=one.issued_at_ms,
                terms=one.terms,
                token=shelf.token_for(one.device, one.package_sha256, one.seq),
            )
            for one in assignments
        ]
        self._files.pop(site, None)
        for done in self._site(site).assign(requests, self._signers[site]):
            if done.token is not None:
                # It stands in the signed assignment now; another one must not carry it too.
                shelf.take_off(done.device, done.package_sha256)

    def files_for(self, site: str, device: str) -> Sequence[tuple[str, bytes]]:
        """The metadata files for a device and, under `assign.json`, its assignment.

        Raises:
            NotFoundError: nothing is assigned to it.
        """
        if site not in self._files:
            self._files[site] = self._site(site).all_files()
        if device not in self._files[site]:
            raise NotFoundError("is assigned nothing", device, hint="plan and start a rollout first")
        return self._files[site][device]

    def _site(self, site: str) -> SiteTrust:
        if site not in self._sites:
            self._sites[site] = self._workspace.trust(site)
        return self._sites[site]
