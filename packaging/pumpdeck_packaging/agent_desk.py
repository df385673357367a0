"""Releasing an agent for a site: the signing half of `agent_trust`. The newest word stands beside the site's metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pumpdeck_fleet.core.clock import Clock
from pumpdeck_fleet.core.errors import NotFoundError, TrustError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem, Signer
from pumpdeck_packaging.agent_trust import (
    AGENT_WORD_FORMAT,
    AGENT_WORD_MAX_BYTES,
    AGENT_WORD_NAME,
    AgentWord,
    sign_agent_word,
    verify_agent_word,
)
from pumpdeck_packaging.bundle_layout import ROOT, metadata_name
from pumpdeck_packaging.folder_lock import hold_folder
from pumpdeck_packaging.trust_repository import SiteTrust
from pumpdeck_packaging.verify import TrustState, VerifiedSite, verify_site


@dataclass(frozen=True, slots=True)
class AgentContent:
    """What is released: the agent's version, digest and length, and the digest of each set of wheels by its target."""

    version: str
    sha256: str
    bytes: int
    wheels: Mapping[str, str] = field(default_factory=dict)


class AgentDesk:
    """The agent releases of one site, in the folder of its trust repository."""

    def __init__(self, folder: Path, trust: SiteTrust, fs: FileSystem, clock: Clock) -> None:
        self._folder = folder
        self._trust = trust
        self._fs = fs
        self._clock = clock

    def release(self, content: AgentContent, signers: Sequence[Signer]) -> AgentWord:
        """Sign this agent for the site. What is released already is not signed again.

        Raises:
            TrustError: too few release keys, or keys of another role; nothing is written then.
            NotFoundError: the site was not founded.
        """
        with hold_folder(self._folder):
            last = self._last_trusted()
            if last is not None and _content_of(last) == content:
                return last
            now_ms = self._clock.now_ms()
            # Above the last one whatever this computer's clock says, and above that of another laptop that works apart.
            serial = max(now_ms, last.serial + 1 if last else 1)
            word = AgentWord(
                format=AGENT_WORD_FORMAT,
                site=self._trust.site,
                version=content.version,
                serial=serial,
                sha256=content.sha256,
                bytes=content.bytes,
                issued_at_ms=now_ms,
                wheels=dict(sorted(content.wheels.items())),
            )
            envelope = sign_agent_word(word, signers)
            # By the device's own code, before anything is written.
            verify_agent_word(envelope, self._verified(), self._trust.site)
            replace_file(self._fs, self._folder / AGENT_WORD_NAME, envelope)
            return word

    def take(self, other: Path) -> bool:
        """Take over the release of another copy of this site's folder when it is newer and holds here. True: it was.

        Raises:
            TrustError, DamagedError: it does not hold; nothing is written then.
        """
        try:
            envelope = self._fs.read_bytes(other / AGENT_WORD_NAME, AGENT_WORD_MAX_BYTES)
        except FileNotFoundError:
            return False
        with hold_folder(self._folder):
            last, found = self._last_trusted(), verify_agent_word(envelope, self._verified(), self._trust.site).word
            if last is not None and found.serial <= last.serial:
                return False
            replace_file(self._fs, self._folder / AGENT_WORD_NAME, envelope)
            return True

    def word(self) -> AgentWord:
        """The newest release.

        Raises:
            NotFoundError: no agent was released for this site. TrustError, DamagedError: it does not hold any more.
        """
        word = self._last()
        if word is None:
            raise NotFoundError("no agent was released for this site", self._trust.site, hint="pumpdeck package agent --release")
        return word

    def files(self) -> list[tuple[str, bytes]]:
        """What an `upgrade` request carries: the site's metadata with every root, and the signed word.

        Raises:
            As `word`.
        """
        self.word()
        envelope = self._fs.read_bytes(self._folder / AGENT_WORD_NAME, AGENT_WORD_MAX_BYTES)
        return [*self._trust.current_files(), (AGENT_WORD_NAME, envelope)]

    def _last_trusted(self) -> AgentWord | None:
        try:
            return self._last()
        except TrustError:
            # Its keys were revoked since: no device counts its serial any more either.
            return None

    def _last(self) -> AgentWord | None:
        try:
            envelope = self._fs.read_bytes(self._folder / AGENT_WORD_NAME, AGENT_WORD_MAX_BYTES)
        except FileNotFoundError:
            return None
        return verify_agent_word(envelope, self._verified(), self._trust.site).word

    def _verified(self) -> VerifiedSite:
        files = dict(self._trust.current_files())
        state = TrustState("console", self._trust.site, files[metadata_name(ROOT, 1)])
        return verify_site(state, files, now_ms=self._clock.now_ms(), clock_synced=False)


def _content_of(word: AgentWord) -> AgentContent:
    return AgentContent(word.version, word.sha256, word.bytes, dict(word.wheels))
