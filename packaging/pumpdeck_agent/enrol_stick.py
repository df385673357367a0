"""Become a device from a form on a stick, and leave the public halves of the new keys on it.

Nothing on the stick is trusted: a person compares the words of the site's root with a sheet of paper before a key is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_agent.age_key import make_age_key
from pumpdeck_agent.config import AgentConfig, Layout, PumpConfig, read_config
from pumpdeck_agent.enrol import create_device
from pumpdeck_fleet.core.errors import ConflictError, NotFoundError, RefusedError, UsageError
from pumpdeck_fleet.core.ids import is_name
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_packaging.bundle_layout import METADATA_MAX_BYTES, parse_metadata_name
from pumpdeck_packaging.bundle_stick import Stick, stick_errors, write_proven
from pumpdeck_packaging.enrolment import (
    ANSWERS,
    FORM_MAX_BYTES,
    FORMS,
    SITES,
    CheckedForm,
    answer_place,
    check_form,
    claimed_site,
    form_place,
    key_words,
    sign_answer,
)
from pumpdeck_packaging.signing import load_key

_HOST_KEY_MAX_BYTES = 8 * 1024
_KEY_MAX_BYTES = 16 * 1024

AgreesTo = Callable[[str, str], bool]
"""Called with the site and the words of its root; True when a person found them on paper."""


@dataclass(frozen=True, slots=True)
class StickEnrolment:
    """What became of it: the words of the new device key are for the console's person to compare."""

    device: str
    site: str
    key_id: str
    key_words: str
    root_words: str
    host_keys: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class EnrolPlace:
    """Where the device shall live, when it is, and where its SSH host keys lie."""

    fs: FileSystem
    root: Path
    now_ms: int
    host_keys: tuple[Path, ...] = ()


def enrol_from(stick: Stick, place: EnrolPlace, device: str, agrees: AgreesTo) -> StickEnrolment:
    """Make `place` the device that the form on the stick describes. Repeating it writes the same answer again.

    Raises:
        NotFoundError: no form, or several and none was named.
        TrustError, DamagedError: a form or the metadata does not hold.
        RefusedError: the person did not find the words on paper.
        ConflictError: this folder is another device already.
        StickFailedError: the stick failed; what was made here stays, repeat it.
    """
    with stick_errors(stick.folder):
        checked = read_form(stick, device, place.now_ms)
    if not agrees(checked.form.site, checked.root_words):
        raise RefusedError("the words of the root were not confirmed", checked.form.site, hint="nothing was made here")
    is_new = _make(place, checked)
    layout = Layout(place.root)
    key = load_key(place.fs.read_bytes(layout.device_key, _KEY_MAX_BYTES), what="device key")
    host_keys = _host_keys(place)
    age_key = make_age_key(place.fs, layout)
    words = key_words(key.public_pem)
    with stick_errors(stick.folder):
        stick.fs.mkdir(stick.folder / ANSWERS)
        path = answer_place(stick.folder, checked.form.device)
        page = f"{checked.form.device} at {checked.form.site}\nkey: {words}\nCompare these words at the console.\n"
        write_proven(stick, path.with_name(path.name + ".txt"), page.encode("utf-8"), "page")
        write_proven(stick, path, sign_answer(checked, key.public_pem, host_keys, key, age_key), "answer")
        stick.fs.fsync_dir(stick.folder / ANSWERS)
    return StickEnrolment(
        checked.form.device, checked.form.site, key.key_id, words, checked.root_words, len(host_keys), is_new
    )


def read_form(stick: Stick, device: str, now_ms: int) -> CheckedForm:
    """The form of that device, or the only one there is, checked against the metadata beside it."""
    try:
        names = sorted(name for name in stick.fs.listdir(stick.folder / FORMS) if is_name(name))
    except FileNotFoundError as error:
        raise NotFoundError(
            "holds no enrolment form", str(stick.folder), hint="pumpdeck devices enrol-stick"
        ) from error
    if device and device not in names:
        raise NotFoundError("holds no form for this device", device, found=", ".join(names) or "none")
    if not device and len(names) != 1:
        raise UsageError(
            "holds several forms", str(stick.folder), found=", ".join(names) or "none", hint="name one: --device"
        )
    chosen = device or names[0]
    envelope = stick.fs.read_bytes(form_place(stick.folder, chosen), FORM_MAX_BYTES)
    folder = stick.folder / SITES / claimed_site(envelope)
    try:
        found = [name for name in stick.fs.listdir(folder) if not name.endswith(".part")]
    except FileNotFoundError as error:
        hint = "write the stick again"
        raise NotFoundError(
            "holds no metadata of the form's site", str(stick.folder), expected=folder.name, hint=hint
        ) from error
    limits = {name: METADATA_MAX_BYTES[parse_metadata_name(name).role] for name in found}
    files = {name: stick.fs.read_bytes(folder / name, limit) for name, limit in limits.items()}
    return check_form(envelope, chosen, files, now_ms)


def _make(place: EnrolPlace, checked: CheckedForm) -> bool:
    form = checked.form
    pumps = tuple(PumpConfig(one.tag, one.type, one.criticality, one.redundancy_group) for one in form.pumps)
    config = AgentConfig(1, form.device, form.site, form.device_class, pumps, form.min_seq)
    if not place.fs.exists(Layout(place.root).config):
        create_device(place.fs, place.root, config, checked.root)
        return True
    here = read_config(place.fs, Layout(place.root))
    root = place.fs.read_bytes(Layout(place.root).trust_root, METADATA_MAX_BYTES["root"])
    if here != config or root != checked.root:
        said = f"{here.device} at {here.site}"
        raise ConflictError("is another device already, or one of an earlier form", str(place.root), found=said)
    return False


def _host_keys(place: EnrolPlace) -> tuple[str, ...]:
    lines = []
    for path in place.host_keys:
        try:
            text = place.fs.read_bytes(path, _HOST_KEY_MAX_BYTES).decode("ascii", "replace")
        except OSError:
            continue
        words = text.split()
        if len(words) >= 2:
            lines.append(" ".join(words[:2]))
    # The kind that consoles prefer comes first.
    return tuple(sorted(lines, key=lambda line: not line.startswith("ssh-ed25519")))
