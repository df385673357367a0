"""What a site's repository lists: targets of released packages and of assignments, from what was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuf.api.metadata import TargetFile

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import ReplayError
from pumpdeck_fleet.core.ids import check_digest, check_name
from pumpdeck_fleet.core.receipts import Assignment
from pumpdeck_packaging.bundle_layout import assignment_path, package_path
from pumpdeck_packaging.trust_rules import PackageWords
from pumpdeck_packaging.verify import ASSIGNMENT_FORMAT

if TYPE_CHECKING:
    from pumpdeck_packaging.trust_repository import AssignmentRequest, PackageRelease


def target_of_package(one: PackageRelease, version: int) -> TargetFile:
    """The release target of a package that `version` introduces."""
    words = PackageWords(version, one.package.unpacked_bytes, dict(sorted(one.versions.items())))
    path = package_path(check_name(one.device, "device"), one.package.sha256)
    custom = {"custom": canonical.to_plain(words)}
    return TargetFile(len(one.package.data), {"sha256": one.package.sha256}, path, custom)


def assignment_of_request(request: AssignmentRequest, current: Assignment | None, version: int, now_ms: int) -> Assignment:
    """What a request comes to: the current assignment when it says the same already, else a new one."""
    if current is not None:
        is_same = (current.package_sha256, current.task) == (request.package_sha256, request.task)
        if is_same and request.seq in (0, current.seq):
            return current
        if 0 < request.seq <= current.seq:
            which = f"assignment of {request.device}"
            raise ReplayError("is not newer than the last one", which, expected=f"above {current.seq}", found=request.seq)
    return Assignment(
        format=ASSIGNMENT_FORMAT,
        device=check_name(request.device, "device"),
        package_sha256=check_digest(request.package_sha256, "package"),
        seq=request.seq or max(version, current.seq + 1 if current else 0),
        issued_at_ms=request.issued_at_ms or now_ms,
        soft_until_ms=request.soft_until_ms,
        task=request.task,
        permit=request.terms.permit,
        retry=request.terms.retry,
        shadow_s=request.terms.shadow_s,
        token=request.token,
    )


def target_of_assignment(assignment: Assignment, data: bytes) -> TargetFile:
    """The deploy target of an assignment with these bytes."""
    path = assignment_path(assignment.device)
    hashes = {"sha256": canonical.digest(data)}
    return TargetFile(len(data), hashes, path, {"custom": {"seq": assignment.seq}})
