"""A site whose keys come from fixed seeds: the same bytes on every run.

`python -m support.golden_trust` in `tests/` writes the golden files anew.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.receipts import RECEIPT_PAYLOAD_TYPE, Outcome, Receipt
from pumpdeck_packaging.manifest import encode_manifest
from pumpdeck_packaging.signing import Ed25519Signer, load_key, sign_dsse
from pumpdeck_packaging.trust_floor import encode_floor
from pumpdeck_packaging.verify import TrustState
from support.packages import built_package
from support.trust import SampleKeys, SampleSite, verify

GOLDEN = Path(__file__).parents[1] / "golden" / "formats" / "trust"


def seeded_key(number: int) -> Ed25519Signer:
    """A key that is no secret."""
    key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    return load_key(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def seeded_keys() -> SampleKeys:
    keys = [seeded_key(number) for number in range(1, 8)]
    return SampleKeys(root=keys[:3], targets=keys[3], release=[keys[4]], laptops=keys[5:])


def golden_files() -> dict[str, bytes]:
    """Every golden file by name: a site's metadata, an assignment, a package, a receipt, a floor."""
    with tempfile.TemporaryDirectory() as folder:
        site = SampleSite(Path(folder), keys=seeded_keys())
        built = site.deliver()
        files = {f"site/{name}": data for name, data in site.trust.files_for("gannet-d1")}
        verified = verify(TrustState("gannet-d1", "gannet", site.root), dict(site.trust.files_for("gannet-d1")))
        provenance = site.trust.provenance()[0]
    receipt = Receipt(
        1, "gannet-d1", "task-1", built.sha256, 128, Outcome.COMMITTED, "", built.sha256, "", 1, 5, False, "0.1.0", "1.18"
    )
    return files | {
        "manifest.json": encode_manifest(built.manifest),
        "package.tar.xz": built.data,
        "package.intoto.jsonl": provenance + b"\n",
        "receipt.dsse.json": sign_dsse(canonical.encode(receipt), RECEIPT_PAYLOAD_TYPE, seeded_key(9)),
        "floor.json": encode_floor(verified.floor),
    }


def main() -> None:
    """Write the golden files anew; the difference is then reviewed."""
    shutil.rmtree(GOLDEN, ignore_errors=True)
    for name, data in golden_files().items():
        path = GOLDEN / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    assert built_package().data == (GOLDEN / "package.tar.xz").read_bytes()


if __name__ == "__main__":
    main()
