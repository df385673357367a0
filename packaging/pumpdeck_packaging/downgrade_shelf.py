"""Downgrade words of a site that two people signed and no assignment carries yet: `trust/<site>/downgrade/<device>-<package>`."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

from pumpdeck_fleet.core.clock import Clock
from pumpdeck_fleet.core.errors import PumpdeckError, UsageError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ids import check_digest, check_name
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_fleet.core.receipts import DowngradeWord
from pumpdeck_packaging.bundle_layout import DEPLOY_SLOTS
from pumpdeck_packaging.downgrade import (
    DOWNGRADE_FORMAT,
    DOWNGRADE_MAX_BYTES,
    REASON_MAX,
    DowngradeToken,
    parse_word,
    verify_downgrade,
)
from pumpdeck_packaging.site_folder import SiteFolder
from pumpdeck_packaging.verify import VerifiedSite

STEPS = 32
"""How many signings of a site's metadata a word outlives when nobody says otherwise."""


def new_nonce() -> str:
    """What makes a word another one."""
    return secrets.token_hex(16)


class DowngradeShelf:
    """The words of one site."""

    def __init__(self, site_folder: Path, fs: FileSystem, clock: Clock, nonce: Callable[[], str] = new_nonce) -> None:
        self.site = site_folder.name
        self._folder = site_folder / "downgrade"
        self._files = SiteFolder(site_folder, fs)
        self._fs = fs
        self._clock = clock
        self._nonce = nonce

    def new_word(self, device: str, package_sha256: str, reason: str, until_seq: int) -> DowngradeWord:
        """A word for people to sign.

        Raises:
            UsageError: no reason, or one that is too long.
        """
        if not 0 < len(reason.strip()) <= REASON_MAX:
            raise UsageError("needs a reason", "downgrade word", expected=f"1-{REASON_MAX} characters", found=len(reason))
        return DowngradeWord(
            format=DOWNGRADE_FORMAT,
            site=self.site,
            device=check_name(device, "device"),
            package_sha256=check_digest(package_sha256, "package"),
            until_seq=until_seq,
            nonce=self._nonce(),
            made_ms=self._clock.now_ms(),
            reason=reason.strip(),
        )

    def verified(self) -> VerifiedSite:
        """The site's metadata, verified as a device would. Raises: NotFoundError, TrustError, DamagedError."""
        return self._files.verified(self._clock.now_ms())

    def put(self, envelope: bytes) -> DowngradeToken:
        """Keep a word for its assignment, checked as the device will check it; it takes the place of an earlier one.

        Raises:
            TrustError, DamagedError: two people of this site did not sign it.
        """
        token = verify_downgrade(envelope, self.verified().trusted, self.site)
        self._fs.mkdir(self._folder)
        replace_file(self._fs, self._path(token.word.device, token.word.package_sha256), envelope)
        return token

    def token_for(self, device: str, package_sha256: str, seq: int) -> str | None:
        """The envelope that an assignment of this package with that number is to carry; None when there is none in force."""
        path = self._path(device, package_sha256)
        if not self._fs.exists(path):
            return None
        envelope = self._fs.read_bytes(path, DOWNGRADE_MAX_BYTES)
        try:
            token = verify_downgrade(envelope, self.verified().trusted, self.site)
        except PumpdeckError:
            # A signer was revoked since, or the file is damaged: the device would refuse the whole assignment with it.
            return None
        return envelope.decode("utf-8") if seq <= token.word.until_seq else None

    def take_off(self, device: str, package_sha256: str) -> None:
        """An assignment carries the word now."""
        path = self._path(device, package_sha256)
        if self._fs.exists(path):
            self._fs.unlink(path)
            self._fs.fsync_dir(self._folder)

    def waiting(self) -> tuple[DowngradeWord, ...]:
        """The words that wait, by device."""
        if not self._fs.exists(self._folder):
            return ()
        found = []
        for name in sorted(self._fs.listdir(self._folder)):
            if not name.endswith(".part"):
                found.append(parse_word(self._fs.read_bytes(self._folder / name, DOWNGRADE_MAX_BYTES)))
        return tuple(found)

    def _path(self, device: str, package_sha256: str) -> Path:
        return self._folder / f"{check_name(device, 'device')}-{check_digest(package_sha256, 'package')[:16]}"


def last_seq(next_seq: int, steps: int) -> int:
    """The highest number with which a word made now serves: so many signings from now, each a step of all slots."""
    return next_seq + steps * DEPLOY_SLOTS
