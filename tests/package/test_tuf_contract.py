"""What `tuf_adapter` takes from python-tuf's private module. When this fails, a new python-tuf moved it: look before you pin."""

from __future__ import annotations

import importlib.metadata
import inspect
from datetime import UTC, datetime

import pytest
from tuf.api.exceptions import ExpiredMetadataError
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from pumpdeck_packaging.tuf_adapter import reference_time
from support.forge import name_of
from support.trust import SampleSite


def test_the_pinned_python_tuf_is_installed() -> None:
    version = importlib.metadata.version("tuf").split(".")
    assert (int(version[0]), version) >= (7, ["7", "0", "1"]) and int(version[0]) < 8


def test_the_trusted_set_has_the_calls_we_drive() -> None:
    def names(call: object) -> list[str]:
        return list(inspect.signature(call).parameters)  # type: ignore[arg-type]

    assert names(TrustedMetadataSet.__init__) == ["self", "root_data", "envelope_type"]
    assert names(TrustedMetadataSet.update_root) == ["self", "data"]
    assert names(TrustedMetadataSet.update_timestamp) == ["self", "data"]
    assert names(TrustedMetadataSet.update_snapshot) == ["self", "data", "trusted"]
    assert names(TrustedMetadataSet.update_targets) == ["self", "data"]
    assert names(TrustedMetadataSet.update_delegated_targets) == ["self", "data", "role_name", "delegator_name"]


def test_expiry_is_judged_by_the_reference_time_we_set_and_by_no_clock(tmp_path: object) -> None:
    from pathlib import Path

    site = SampleSite(Path(str(tmp_path)))
    site.deliver()
    files = site.files()
    for year, fine in ((1970, True), (2026, True), (2999, False)):
        trusted = TrustedMetadataSet(site.root, EnvelopeType.METADATA)
        assert isinstance(trusted.reference_time, datetime)
        trusted.reference_time = datetime(year, 1, 1, tzinfo=UTC)
        if fine:
            trusted.update_timestamp(files["timestamp.json"])
            trusted.update_snapshot(files[name_of(files, "snapshot")])
            trusted.update_targets(files[name_of(files, "targets")])
            for role in ("release", "deploy"):
                trusted.update_delegated_targets(files[name_of(files, role)], role, "targets")
        else:
            with pytest.raises(ExpiredMetadataError):
                trusted.update_timestamp(files["timestamp.json"])


def test_the_reference_time_survives_every_clock() -> None:
    assert reference_time(-5) == datetime(1970, 1, 1, tzinfo=UTC)
    assert reference_time(2**53).year == 9999
