"""Changes of a sample site's keys, as its people make them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pumpdeck_packaging.signing import Ed25519Signer
from pumpdeck_packaging.trust_change import KeyEdit, Renewal, edited_keys, parts_to_sign, site_keys_of
from pumpdeck_packaging.trust_proposal import Proposal, make_proposal, propose, sign_proposal
from support.trust import SampleSite


def proposed(site: SampleSite, edits: Sequence[KeyEdit], renewal: Renewal | None = None) -> Proposal:
    """The unsigned change."""
    base = site.trust.base()
    keys = edited_keys(site_keys_of(base.site), edits)
    parts = parts_to_sign(base, keys, site.trust.signing_time(), renewal or Renewal())
    return make_proposal([propose(base, parts)], "a test", {}, site.clock.now_ms())


def signed(site: SampleSite, proposal: Proposal, *signers: Ed25519Signer) -> Proposal:
    """The proposal after these people signed."""
    return sign_proposal(proposal, signers, site.clock.now_ms())[0]


def changed(site: SampleSite, edits: Sequence[KeyEdit], signers: Sequence[Ed25519Signer], laptop: int = 1) -> int:
    """Propose, sign, publish; the root version."""
    done = signed(site, proposed(site, edits), *signers)
    return site.trust.publish(done.sites[0], site.keys.laptops[laptop])


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
