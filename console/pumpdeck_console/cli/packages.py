"""`pumpdeck package`: build, list and show the signed packages of devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pumpdeck_console.cli.lazy import LazyGroup
from pumpdeck_console.cli.output import (
    Column,
    json_option,
    query_argument,
    say,
    show_bytes,
    show_digest,
    time_text,
    write_object,
    write_rows,
)
from pumpdeck_console.cli.params import key_options, models_option
from pumpdeck_console.cli.session import ProgressLine, Session
from pumpdeck_fleet.core.registry import FOREIGN

_COLUMNS = (
    Column("device"),
    Column("site"),
    Column("package", write=show_digest),
    Column("bytes", write=show_bytes, right=True),
    Column("versions"),
    Column("created"),
)
_BUILT_COLUMNS = (
    Column("device"),
    Column("site"),
    Column("package", write=show_digest),
    Column("bytes", write=show_bytes, right=True),
    Column("new"),
    Column("left_out"),
)
_AGENT_COLUMNS = (
    Column("part"),
    Column("version"),
    Column("bytes", write=show_bytes, right=True),
    Column("digest", write=show_digest),
    Column("path"),
)


_SIGNING = "pumpdeck_console.cli.trust_keys"
_FOUR_EYES = {
    "sign": (f"{_SIGNING}:sign", "Sign what stands in FILE with keys you hold."),
    "publish": (f"{_SIGNING}:publish_packages", "Release the packages in FILES that enough people have signed."),
}


@click.group(cls=LazyGroup, lazy=_FOUR_EYES)
def package() -> None:
    """Build, release, list or show the signed packages of devices."""


@package.command("build")
@query_argument
@models_option
@key_options
@json_option
@click.pass_obj
def build(session: Session, query: str, models: tuple[str, ...], as_json: bool) -> None:
    """Build and release a package for every device with a pump that QUERY selects.

    Each package holds the candidate of each pump type on the device, else the champion, unless --model says otherwise.
    """
    from pumpdeck_console.operations.packages import build_packages  # deferred: TUF and the trainer's types
    from pumpdeck_console.operations.selection import parse_models

    with ProgressLine() as progress:
        report = build_packages(session.workspace(), query=query, models=parse_models(models), on_progress=progress)
    built: list[dict[str, Any]] = [
        {
            "device": row.device,
            "site": row.site,
            "package": row.sha256,
            "bytes": row.bytes,
            "unpacked_bytes": row.unpacked_bytes,
            "new": row.is_new,
            "pending": row.pending,
            "left_out": "",
        }
        for row in report.packages
    ]
    sites = session.workspace().fleet.device_by_id
    left_out = [
        {"device": one.device, "site": sites[one.device].site, "left_out": one.reason} for one in report.left_out
    ]
    write_rows([*built, *left_out], _BUILT_COLUMNS, as_json=as_json, empty="")
    for path in sorted({row.pending for row in report.packages} - {""}):
        say(f"Not released yet: another person signs it with: pumpdeck package sign {path}")
        say(f"Then here: pumpdeck package publish {path}")
    say(
        f"{len(built)} packages, {sum(bool(row['new']) for row in built)} of them new; {len(left_out)} devices left out."
    )


@package.command("agent")
@click.option(
    "--to", "folder", type=click.Path(path_type=Path), help="Also write agent.pyz and wheels/ into this folder."
)
@click.option(
    "--wheels",
    "targets",
    multiple=True,
    metavar="TARGET",
    help="Fetch the compiled libraries for this kind of computer, such as aarch64-cp311; may be given again.",
)
@click.option("--release", is_flag=True, help="Sign it for the devices of every site.")
@key_options
@json_option
@click.pass_obj
def agent(session: Session, folder: Path | None, targets: tuple[str, ...], release: bool, as_json: bool) -> None:
    """Build the agent that runs on devices as one file, and fetch the compiled libraries it needs there.

    The same sources give the same bytes. Libraries need the package index once; after that they are proven by digest.
    """
    from pumpdeck_console.operations.agent_releases import (
        build_agent_release,  # deferred: reads every source of the agent
    )

    with ProgressLine() as progress:
        built = build_agent_release(
            session.workspace(), to=str(folder or ""), targets=targets, release=release, on_progress=progress
        )
    rows = [
        {"part": "agent", "version": built.version, "bytes": built.bytes, "digest": built.sha256, "path": built.path},
        *(
            {"part": one.target, "version": one.versions, "bytes": one.bytes, "digest": one.sha256, "path": one.path}
            for one in built.wheels
        ),
    ]
    write_rows(rows, _AGENT_COLUMNS, as_json=as_json, empty="")
    if release:
        say(f"Released for {len(built.released)} sites. Bring it to devices with: pumpdeck devices upgrade")


@package.command("list")
@query_argument
@json_option
@click.pass_obj
def list_built(session: Session, query: str, as_json: bool) -> None:
    """List the packages of devices with a pump that QUERY selects, newest first within a device."""
    from pumpdeck_console.operations.packages import list_packages  # deferred: TUF and the trainer's types

    rows = [
        {
            "device": row.device,
            "site": row.site,
            "package": row.sha256,
            "bytes": row.bytes,
            "unpacked_bytes": row.unpacked_bytes,
            "versions": ", ".join(f"{model} v{number}" for model, number in sorted(row.versions.items())),
            "created": time_text(row.created_ms),
        }
        for row in list_packages(session.workspace(), query=query)
    ]
    write_rows(rows, _COLUMNS, as_json=as_json, empty="No package yet. Make one with: pumpdeck package build")


@package.command("show")
@click.argument("package_or_device")
@json_option
@click.pass_obj
def show(session: Session, package_or_device: str, as_json: bool) -> None:
    """Verify a package against its digest and show what is in it.

    PACKAGE_OR_DEVICE is a digest, or a device for its newest package.
    """
    from pumpdeck_console.operations.packages import show_package  # deferred: TUF and the trainer's types

    view = show_package(session.workspace(), which=package_or_device)
    row, manifest = view.row, view.manifest
    write_object(
        {
            "package": row.sha256,
            "device": row.device,
            "site": row.site,
            "bytes": row.bytes,
            "unpacked_bytes": row.unpacked_bytes,
            "versions": ", ".join(f"{model} v{number}" for model, number in sorted(row.versions.items())),
            "device_class": manifest.requirements.device_class,
            "onnxruntime": manifest.requirements.onnxruntime,
            "opset": manifest.requirements.opset,
            "data_end": time_text(manifest.data_end_ms),
            "created": time_text(row.created_ms),
            "foreign": ", ".join(one.model for one in manifest.models if one.model_type == FOREIGN) or None,
            "pumps": ", ".join(f"{pump.tag} (limit {pump.limit:.4g})" for pump in manifest.pumps),
            "files": len(manifest.files) + 1,
        },
        as_json=as_json,
    )
