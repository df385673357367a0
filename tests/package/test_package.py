"""Building and reading a package."""

from __future__ import annotations

import io
import lzma
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from pumpdeck_fleet.core.canonical import digest
from pumpdeck_fleet.core.errors import ConflictError, DamagedError, GateRefusedError, NotFoundError, UsageError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_packaging.package import build_package
from pumpdeck_packaging.package_reader import load_folder, read_package, unpack_to
from pumpdeck_packaging.provenance import sign_provenance, verify_provenance
from pumpdeck_packaging.signing import generate_key
from support.packages import built_package, model_content, package_content, pump_content


def test_the_same_content_in_another_order_gives_the_same_bytes() -> None:
    content = package_content()
    turned = replace(content, pumps=content.pumps[::-1])
    assert build_package(content).data == build_package(turned).data


def test_a_title_or_a_commit_does_not_change_the_package() -> None:
    content = package_content()
    model = content.models[0]
    other = replace(model, lineage=replace(model.lineage, git_commit="fff", git_dirty=False))
    channels = tuple(replace(channel, title="better words") for channel in content.pumps[0].channels)
    pumps = (replace(content.pumps[0], channels=channels), *content.pumps[1:])
    assert build_package(replace(content, models=(other,), pumps=pumps)).sha256 == build_package(content).sha256


def test_another_graph_or_limit_gives_another_package() -> None:
    content = package_content()
    limits = (replace(content.pumps[0], limit=4.6), *content.pumps[1:])
    found = {build_package(content).sha256, built_package(onnx=b"other").sha256}
    assert len(found | {build_package(replace(content, pumps=limits)).sha256}) == 3


def test_a_package_is_a_plain_tar_that_any_tool_reads() -> None:
    built = built_package()
    tar = lzma.decompress(built.data)
    assert len(tar) == built.unpacked_bytes == built.manifest.unpacked_bytes
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        members = archive.getmembers()
        names = [member.name for member in members]
        assert names == sorted(names) and "pumps/p-100a.block" in names and "provenance.json" in names
        assert all(m.isreg() and m.mode == 0o644 and m.mtime == 0 and m.uid == 0 and m.uname == "" for m in members)


def test_four_pumps_stay_below_eight_kilobytes() -> None:
    assert len(built_package(pumps=4).data) < 8_000


def test_what_was_built_is_what_is_read() -> None:
    built = built_package()
    package = read_package(built.data, expected_sha256=built.sha256, max_unpacked_bytes=built.unpacked_bytes)
    assert package.manifest == built.manifest
    assert package.files["model-esp.onnx"] == b"graph"
    assert package.manifest.pump("p-100A").tag == "P-100A"
    assert package.manifest.model_of("esp").golden in package.files
    with pytest.raises(NotFoundError):
        package.manifest.pump("P-999")


def test_an_unpacked_package_reads_back_and_every_alteration_is_seen(tmp_path: Path) -> None:
    built = built_package()
    package = read_package(built.data, expected_sha256=built.sha256, max_unpacked_bytes=built.unpacked_bytes)
    fs = RealFileSystem()
    folder = tmp_path / "staged"
    unpack_to(fs, folder, package)
    assert load_folder(fs, folder, manifest_digest=package.manifest_digest) == package
    with pytest.raises(ConflictError):
        unpack_to(fs, folder, package)
    for path, data in package.members().items():
        for bad in (b"", data + b"x", bytes([data[0] ^ 1]) + data[1:]):
            (folder / path).write_bytes(bad)
            with pytest.raises(DamagedError):
                load_folder(fs, folder, manifest_digest=package.manifest_digest)
        (folder / path).unlink()
        with pytest.raises(DamagedError):
            load_folder(fs, folder)
        (folder / path).write_bytes(data)
    (folder / "stranger").write_bytes(b"")
    with pytest.raises(DamagedError, match="stranger"):
        load_folder(fs, folder)


def test_a_model_too_new_for_the_device_class_is_refused() -> None:
    content = replace(package_content(), models=(replace(model_content(), opset=17),))
    with pytest.raises(GateRefusedError, match="opset"):
        build_package(content)


def test_a_pump_without_a_model_is_refused() -> None:
    with pytest.raises(GateRefusedError):
        build_package(replace(package_content(), pumps=(pump_content(pump_type="pcp"),)))


def test_two_tags_that_differ_by_case_only_never_share_a_package() -> None:
    with pytest.raises(UsageError):
        build_package(replace(package_content(), pumps=(pump_content("P-1a"), pump_content("P-1A"))))


def test_provenance_is_signed_beside_the_package_and_names_it() -> None:
    built, key = built_package(), generate_key()
    envelope = sign_provenance(built.provenance, built.sha256, key)
    statement = verify_provenance(envelope, built.sha256, {key.key_id: key.public_pem})
    names = {item["name"] for item in statement["subject"]}
    assert f"{built.sha256}.tar.xz" in names and "model-esp.onnx" in names
    materials = {item["name"] for item in statement["predicate"]["buildDefinition"]["resolvedDependencies"]}
    assert materials == {"esp/code", "esp/lock", "esp/pipeline", "esp/snapshot"}
    with pytest.raises(Exception, match="another package"):
        verify_provenance(envelope, digest(b"other"), {key.key_id: key.public_pem})
