"""One honest example of everything that Pumpdeck reads from outside, signed by keys from fixed seeds."""

from __future__ import annotations

import lzma
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.receipts import (
    AGENT_RECEIPT_PAYLOAD_TYPE,
    RECEIPT_PAYLOAD_TYPE,
    RETURN_PAYLOAD_TYPE,
    AgentReceipt,
    AlarmNotice,
    Outcome,
    Receipt,
    RetrainRequest,
    ReturnIndex,
    ReturnItem,
    ReturnKind,
    SelfTest,
)
from pumpdeck_fleet.numeric.frame import TelemetryFrame
from pumpdeck_packaging.agent_trust import AgentWord, sign_agent_word
from pumpdeck_packaging.bundle_kept import DeviceName, sign_kept
from pumpdeck_packaging.enrolment import EnrolForm, EnrolPump, check_form, sign_answer, sign_form
from pumpdeck_packaging.trust_change import KeyEdit
from pumpdeck_packaging.trust_proposal import encode_proposal
from pumpdeck_packaging.verify import TrustState, VerifiedSite, verify_site
from support.ceremony import proposed, signed
from support.downgrades import signed as signed_word
from support.downgrades import word
from support.golden_trust import GOLDEN as TRUST
from support.golden_trust import seeded_key, seeded_keys
from support.trust import NOW_MS, SampleSite

FORMATS = TRUST.parent
DOCS = FORMATS.parents[2] / "docs"
DEVICE = "gannet-d1"
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJcNoh4ZAj4jUO/zcxKkKoCyWzXUNpcnPY1zb3wWmNQO"


@dataclass
class Samples:
    """A site in a folder of its own, and what its people and devices sign."""

    folder: Path
    device_key: object = field(default_factory=lambda: seeded_key(9))

    @cached_property
    def site(self) -> SampleSite:
        site = SampleSite(self.folder, keys=seeded_keys())
        site.deliver()
        return site

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The whole set a device is handed, with an assignment that carries a downgrade word."""
        return self.site.files()

    @property
    def metadata(self) -> dict[str, bytes]:
        """The same without the assignment."""
        return {name: data for name, data in self.files.items() if name != "assign.json"}

    @cached_property
    def verified(self) -> VerifiedSite:
        return verify_site(self.site.state(), self.metadata, now_ms=NOW_MS, clock_synced=False)

    @cached_property
    def receipt(self) -> Receipt:
        test = SelfTest(24, 0.0, True, 20.0, 40.0, 60.0)
        return Receipt(
            1,
            DEVICE,
            "task-1",
            "a" * 64,
            128,
            Outcome.COMMITTED,
            "",
            "a" * 64,
            "",
            1,
            5,
            False,
            "0.1.0",
            "1.18",
            test,
            "WO 7/3",
        )

    @cached_property
    def agent_receipt(self) -> AgentReceipt:
        return AgentReceipt(1, DEVICE, "b" * 64, "0.2.0", 3, Outcome.COMMITTED, "", "b" * 64, "", 2, 6, True)

    @cached_property
    def items(self) -> list[tuple[ReturnItem, bytes]]:
        """What a device returns: a receipt, an alarm, a request, rows, a sketch."""
        rows = canonical.encode({"format": 1, "pump": "P-101A", "package_sha256": "a" * 64}) + b"\n" + self.chunk
        alarm = AlarmNotice(1, DEVICE, "P-101A", 7, True, 5.5, 4.5, "speed_rpm", "a" * 64)
        request = RetrainRequest(1, DEVICE, "P-101A", 8, "drift", "half of its limit for a day", "a" * 64)
        found = [
            (ReturnKind.RECEIPT, self.sign(canonical.encode(self.receipt), RECEIPT_PAYLOAD_TYPE), ""),
            (ReturnKind.ALARM, canonical.encode(alarm), "P-101A"),
            (ReturnKind.RETRAIN_REQUEST, canonical.encode(request), "P-101A"),
            (ReturnKind.SEGMENT, rows, "P-101A"),
        ]
        return [(ReturnItem(kind, canonical.digest(data), len(data), pump, 0), data) for kind, data, pump in found]

    @cached_property
    def index(self) -> ReturnIndex:
        return ReturnIndex(1, DEVICE, 4, 9, tuple(item for item, _ in self.items))

    def sign(self, payload: bytes, kind: str) -> bytes:
        """An envelope by the device's own key, whatever it says: what a thief of the device can make."""
        from pumpdeck_packaging.signing import sign_dsse

        return sign_dsse(payload, kind, seeded_key(9))

    @cached_property
    def device_keys(self) -> dict[str, str]:
        key = seeded_key(9)
        return {key.key_id: key.public_pem}

    @cached_property
    def envelopes(self) -> dict[str, bytes]:
        """Every kind of signed envelope by name."""
        laptop, release = self.site.keys.laptops[0], self.site.keys.release[0]
        returned = self.sign(canonical.encode(self.index), RETURN_PAYLOAD_TYPE)
        agent = AgentWord(1, "gannet", "0.2.0", 3, "b" * 64, 900_000, NOW_MS, {"x86_64-cp311": "c" * 64})
        return {
            "receipt": self.items[0][1],
            "agent-receipt": self.sign(canonical.encode(self.agent_receipt), AGENT_RECEIPT_PAYLOAD_TYPE),
            "return.json": returned,
            "kept": sign_kept(DeviceName("gannet", DEVICE), returned, laptop),
            "agent.dsse.json": sign_agent_word(agent, [release]),
            "downgrade": signed_word(word("a" * 64), self.site.keys.laptops[:2]).encode(),
            "form": self.form,
            "answer": self.answer,
        }

    @cached_property
    def plain_form(self) -> EnrolForm:
        root = canonical.digest(self.site.root)
        return EnrolForm(1, DEVICE, "gannet", "edge-x86", (EnrolPump("P-101A", "esp"),), 129, root, NOW_MS)

    @cached_property
    def form(self) -> bytes:
        return sign_form(self.plain_form, self.site.keys.laptops[0])

    @cached_property
    def answer(self) -> bytes:
        checked = check_form(self.form, DEVICE, self.metadata, NOW_MS)
        key = seeded_key(9)
        return sign_answer(checked, key.public_pem, (HOST_KEY,), key)

    @cached_property
    def proposal(self) -> bytes:
        edit = KeyEdit("deploy", remove=(self.site.keys.laptops[1].key_id,))
        return encode_proposal(signed(self.site, proposed(self.site, [edit]), self.site.keys.root[0]))

    @cached_property
    def package(self) -> bytes:
        return (TRUST / "package.tar.xz").read_bytes()

    @cached_property
    def package_tar(self) -> bytes:
        return lzma.decompress(self.package)

    @cached_property
    def chunk(self) -> bytes:
        return (FORMATS / "column_chunk.bin").read_bytes()

    @cached_property
    def frame(self) -> TelemetryFrame:
        """Forty rows of two channels, a missing value in them."""
        at_ms = 1_700_000_000_000 + 60_000 * np.arange(40, dtype=np.int64)
        values = np.round(np.random.default_rng(3).normal(50, 2, (40, 2)), 2).astype(np.float32)
        values[7, 1] = np.nan
        return TelemetryFrame(("pressure_bar", "speed_rpm"), at_ms, values, np.zeros(40, np.uint16))

    def trust_state(self) -> TrustState:
        return self.site.state()
