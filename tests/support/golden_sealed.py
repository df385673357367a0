"""An encrypted return and package from fixed keys: read for ever. age makes other bytes each time, so they are written once.

`python -m support.golden_sealed` in `tests/` writes them anew.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.receipts import RETURN_PAYLOAD_TYPE, ReturnIndex, ReturnItem, ReturnKind
from pumpdeck_packaging.age_box import parse_identities
from pumpdeck_packaging.bundle_stick import Stick
from pumpdeck_packaging.sealed_package import seal_package
from pumpdeck_packaging.sealed_return import ReturnReaders, ReturnSigner, write_sealed
from pumpdeck_packaging.signing import sign_dsse
from support.golden_trust import seeded_key
from support.packages import built_package

GOLDEN = Path(__file__).parents[1] / "golden" / "formats" / "sealed"
# No secret: it opens these files and nothing else.
READER = "AGE-SECRET-KEY-1NM0Y4QZ3GJRHU45JJHKUT6L4U6T0MF4LR0YJ3LVXFXFJRAKKMP2SL6ASH6"
ITEMS = (b"a receipt", b"rows of a pump " * 10)


def main() -> None:
    """Write the files anew; the difference is then reviewed."""
    shutil.rmtree(GOLDEN, ignore_errors=True)
    GOLDEN.mkdir(parents=True)
    fs, key = RealFileSystem(), seeded_key(9)
    (reader,) = parse_identities(READER, "golden")
    kinds = (ReturnKind.RECEIPT, ReturnKind.SEGMENT)
    items = [(ReturnItem(kind, canonical.digest(data), len(data)), data) for kind, data in zip(kinds, ITEMS, strict=True)]

    def next_index(listed: tuple[ReturnItem, ...]) -> tuple[ReturnIndex, bytes]:
        index = ReturnIndex(1, "gannet-d1", 7, 5, listed)
        return index, sign_dsse(canonical.encode(index), RETURN_PAYLOAD_TYPE, key)

    signer = ReturnSigner(next_index, lambda payload, kind: sign_dsse(payload, kind, key), reader.public)
    write_sealed(Stick(fs, GOLDEN, fs.read_bytes), "gannet-d1", ReturnReaders({"office": reader.public}), items, signer)
    (GOLDEN / "package.tar.xz.age").write_bytes(seal_package(built_package().data, "gannet-d1", reader.public)[1])


if __name__ == "__main__":
    main()
