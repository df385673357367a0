"""A change of keys and an enrolment on a stick from fixed seeds: the same bytes on every run.

`python -m support.golden_keys` in `tests/` writes the golden files anew.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from pumpdeck_console.key_holders import Holders, with_ended, with_names
from pumpdeck_fleet.core import canonical
from pumpdeck_packaging.enrolment import EnrolForm, EnrolPump, check_form, sign_answer, sign_form
from pumpdeck_packaging.trust_change import KeyEdit
from pumpdeck_packaging.trust_proposal import encode_proposal
from support.ceremony import proposed, signed
from support.golden_trust import seeded_key, seeded_keys
from support.trust import NOW_MS, SampleSite

AGE_KEY = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
GOLDEN = Path(__file__).parents[1] / "golden" / "formats" / "keys"


def golden_files() -> dict[str, bytes]:
    """Every golden file by name: a half-signed proposal, a form, its answer, the holders of a site."""
    with tempfile.TemporaryDirectory() as folder:
        site = SampleSite(Path(folder), keys=seeded_keys())
        edit = KeyEdit("deploy", add=(seeded_key(20).public,), remove=(site.keys.laptops[0].key_id,))
        proposal = signed(site, proposed(site, [edit]), site.keys.root[0])
        root = canonical.digest(site.root)
        form = EnrolForm(
            1, "gannet-d1", "gannet", "edge-x86", (EnrolPump("P-101A", "esp", 2, "P-101"),), 129, root, NOW_MS
        )
        envelope = sign_form(form, site.keys.laptops[0])
        checked = check_form(envelope, "gannet-d1", dict(site.trust.current_files()), NOW_MS)
    device = seeded_key(9)
    names = {site.keys.root[0].key_id: "root-1", site.keys.laptops[0].key_id: "laptop 1"}
    holders = with_ended(with_names(Holders(), names, NOW_MS), {site.keys.laptops[0].key_id: "stolen"}, NOW_MS + 1)
    return {
        "proposal.json": encode_proposal(proposal),
        "enrol-form.dsse.json": envelope,
        "enrol-answer.dsse.json": sign_answer(checked, device.public_pem, ("ssh-ed25519 AAAA",), device, AGE_KEY),
        "holders.json": canonical.encode(holders),
    }


def main() -> None:
    """Write the golden files anew; the difference is then reviewed."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for name, data in golden_files().items():
        (GOLDEN / name).write_bytes(data)


if __name__ == "__main__":
    main()
