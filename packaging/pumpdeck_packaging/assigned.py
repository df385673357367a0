"""From a request to the assignment that is signed, and its place among the deploy role's targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuf.api.metadata import TargetFile

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import ReplayError
from pumpdeck_fleet.core.ids import check_digest, check_name
from pumpdeck_fleet.core.receipts import Assignment
from pumpdeck_packaging.bundle_layout import assignment_path
from pumpdeck_packaging.verify import ASSIGNMENT_FORMAT

if TYPE_CHECKING:
    from pumpdeck_packaging.trust_repository import AssignmentRequest


def assignment_for(request: AssignmentRequest, current: Assignment | None, version: int, now_ms: int) -> Assignment:
    """What a request comes to: the current assignment when it says the same already, else a new one.

    Raises:
        ReplayError: its number is not above the last one's.
    """
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


def assignment_target(assignment: Assignment, data: bytes) -> TargetFile:
    """The target under which the deploy role signs an assignment."""
    path = assignment_path(assignment.device)
    hashes = {"sha256": canonical.digest(data)}
    return TargetFile(len(data), hashes, path, {"custom": {"seq": assignment.seq}})
