"""The targets that a site signs: one a package, under the path of the form in which it travels; one an assignment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuf.api.metadata import TargetFile, Targets

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.ids import check_name
from pumpdeck_fleet.core.receipts import Assignment
from pumpdeck_packaging.bundle_layout import SEALED_SUFFIX, assignment_path, package_path, sealed_path
from pumpdeck_packaging.package import BuiltPackage
from pumpdeck_packaging.sealed_package import SealedPackage
from pumpdeck_packaging.trust_rules import PackageWords, SealedWords, released_package


@dataclass(frozen=True, slots=True)
class PackageRelease:
    """A package to release for the device it was built for, with its models' version numbers in this workspace.

    `sealed` is its ciphertext where the device's class demands one.
    """

    package: BuiltPackage
    versions: Mapping[str, int]
    sealed: SealedPackage | None = None

    @property
    def device(self) -> str:
        """The device the package was built for."""
        return self.package.manifest.device

    @property
    def path(self) -> str:
        """Its target path."""
        path_of = sealed_path if self.sealed else package_path
        return path_of(check_name(self.device, "device"), self.package.sha256)

    @property
    def stored_sha256(self) -> str:
        """The digest that TUF signs: of what travels."""
        return self.sealed.sha256 if self.sealed else self.package.sha256


def package_paths(device: str, sha256: str) -> tuple[str, str]:
    """The two target paths that a package may have, of which it has one."""
    return package_path(device, sha256), sealed_path(device, sha256)


def new_packages(packages: Sequence[PackageRelease], released: Mapping[str, TargetFile]) -> list[PackageRelease]:
    """Those that are not released in this very form."""
    return [one for one in packages if one.path not in released or released[one.path].hashes != {"sha256": one.stored_sha256}]


def with_new(released: Mapping[str, TargetFile], new: Sequence[PackageRelease], version: int) -> dict[str, TargetFile]:
    """The targets of the next release version; a package that changes its form leaves no other behind."""
    twins = {path for one in new for path in package_paths(one.device, one.package.sha256)}
    entries = {path: target for path, target in released.items() if path not in twins}
    return entries | {one.path: _target(one, version) for one in new}


def sealed_in(released: Targets) -> dict[tuple[str, str], SealedPackage]:
    """(device, package inside) -> ciphertext, for every target that is encrypted.

    Raises:
        TrustError, FormatError: an entry contradicts itself.
    """
    found = {}
    for path, target in released.targets.items():
        _, device, name = path.split("/")
        if name.endswith(SEALED_SUFFIX):
            sha256 = name.removesuffix(SEALED_SUFFIX)
            package = released_package(released, device, sha256)
            found[device, sha256] = SealedPackage(package.sealed, package.bytes, str(target.custom["age_key"]))
    return found


def assignment_target(assignment: Assignment, data: bytes) -> TargetFile:
    """The target of an assignment whose bytes are `data`."""
    path, custom = assignment_path(assignment.device), {"custom": {"seq": assignment.seq}}
    return TargetFile(len(data), {"sha256": canonical.digest(data)}, path, custom)


def _target(one: PackageRelease, version: int) -> TargetFile:
    versions = dict(sorted(one.versions.items()))
    words: PackageWords | SealedWords = PackageWords(version, one.package.unpacked_bytes, versions)
    if one.sealed is not None:
        words = SealedWords(version, one.package.unpacked_bytes, versions, one.sealed.age_key)
    length = one.sealed.bytes if one.sealed else len(one.package.data)
    return TargetFile(length, {"sha256": one.stored_sha256}, one.path, {"custom": canonical.to_plain(words)})
