"""Enrolling devices that no network reaches: forms go out on a stick, public keys come back on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.confidential_packages import note_age_key
from pumpdeck_console.operations.devices import EnrolledRow, keep_identity
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import NotFoundError, PumpdeckError, TrustError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ids import is_name
from pumpdeck_fleet.core.words import check_words, fingerprint_words
from pumpdeck_fleet.store.devices import DeviceTrustRow
from pumpdeck_packaging.bundle_layout import ROOT, TARGETS
from pumpdeck_packaging.bundle_stick import Stick, real_stick, stick_errors, write_proven
from pumpdeck_packaging.enrolment import (
    ANSWER_MAX_BYTES,
    ANSWERS,
    ENROL_FORMAT,
    FORM_MAX_BYTES,
    FORM_PAYLOAD_TYPE,
    FORMS,
    SITES,
    EnrolForm,
    EnrolPump,
    answer_place,
    check_answer,
    form_place,
    key_words,
    sign_form,
)
from pumpdeck_packaging.signing import key_id_of, verify_dsse


@dataclass(frozen=True, slots=True)
class FormRow:
    """One form on the stick; `root_words` belong on the sheet of paper that goes with it."""

    device: str
    site: str
    root_words: str


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """One answer on the stick. `words` are those the device showed; `problem` is empty or says why it cannot be taken."""

    device: str
    key_id: str
    words: str
    host_key: str
    problem: str = ""


@operation("devices.write_forms", runs_in="worker")
def write_forms(workspace: Workspace, *, devices: Sequence[str], folder: str) -> tuple[FormRow, ...]:
    """Write a signed form for each device, and its site's metadata, into a folder of a stick. Earlier answers are left alone.

    Raises:
        NotFoundError: no such device, no trust repository, or no deploy key here. StickFailedError: the stick failed.
    """
    stick = real_stick(Path(folder).absolute())
    rows = []
    with stick_errors(stick.folder):
        for part in (FORMS, SITES, ANSWERS):
            stick.fs.mkdir(stick.folder / part)
    for name in devices:
        form, envelope = _form(workspace, name)
        files = workspace.trust(form.site).current_files()
        # Kept here first: an answer is only taken to the very form that was written.
        _keep_form(workspace, form.device, envelope)
        with stick_errors(stick.folder):
            stick.fs.mkdir(stick.folder / SITES / form.site)
            for file, data in files:
                write_proven(stick, stick.folder / SITES / form.site / file, data, file)
            write_proven(stick, form_place(stick.folder, form.device), envelope, "form")
            stick.fs.fsync_dir(stick.folder / SITES / form.site)
            stick.fs.fsync_dir(stick.folder / FORMS)
        with workspace.store.atomic() as store:
            digests = {"form": canonical.digest(envelope), "root": form.root}
            store.audit.append(workspace.actor, "device.enrol_form", form.device, reason=form.site, digests=digests)
        rows.append(FormRow(form.device, form.site, fingerprint_words(workspace.trust(form.site).root_bytes())))
    return tuple(rows)


@operation("devices.read_answers", runs_in="reader")
def read_answers(workspace: Workspace, *, folder: str) -> tuple[AnswerRow, ...]:
    """What devices left on the stick, each checked against the form that was written here; nothing is recorded.

    Raises:
        NotFoundError: there is no such folder. StickFailedError: the stick failed.
    """
    stick = real_stick(Path(folder).absolute())
    with stick_errors(stick.folder):
        try:
            names = sorted(name for name in stick.fs.listdir(stick.folder / ANSWERS) if is_name(name))
        except FileNotFoundError as error:
            raise NotFoundError("holds no answers", folder, hint="is the stick mounted?") from error
        return tuple(_row(workspace, stick, name) for name in names if not name.endswith((".txt", ".part")))


@operation("devices.accept_answer", runs_in="worker")
def accept_answer(
    workspace: Workspace, *, folder: str, device: str, words: str, replace_identity: bool = False
) -> EnrolledRow:
    """Enrol a device by its answer on the stick; `words` are those that the person read at the device.

    Raises:
        TrustError: the words are others, or the answer does not hold. ConflictError: it is enrolled with another key.
    """
    stick = real_stick(Path(folder).absolute())
    with stick_errors(stick.folder):
        found = _row(workspace, stick, workspace.fleet.device(device).id)
    if found.problem:
        raise TrustError("its answer is not to be believed", device, found=found.problem)
    check_words(found.words, words, f"key of {device}")
    form = _kept(workspace, device)[1]
    with stick_errors(stick.folder):
        envelope = stick.fs.read_bytes(answer_place(stick.folder, device), ANSWER_MAX_BYTES)
    # Read again, so judged again: the stick may give other bytes the second time.
    answer = check_answer(envelope, _kept(workspace, device)[0], form)
    check_words(key_words(answer.public_key), words, f"key of {device}")
    host_key = answer.host_keys[0] if answer.host_keys else ""
    now_ms = workspace.clock.now_ms()
    with workspace.store.atomic() as store:
        row = keep_identity(workspace, device, answer.public_key, host_key, replace_identity)
        forms = workspace.trust(form.site).base().site.forms
        if form.root == canonical.digest(forms[ROOT].data):
            trust = DeviceTrustRow(device, form.site, forms[TARGETS].version, forms[ROOT].version, now_ms, "enrolment")
            store.devices.put_trust(trust)
        note_age_key(workspace, device, answer.age_key, "told at enrolment, on a stick")
    return row


def _form(workspace: Workspace, name: str) -> tuple[EnrolForm, bytes]:
    device = workspace.fleet.device(name)
    trust = workspace.trust(device.site)
    pumps = tuple(
        EnrolPump(pump.tag, pump.type, pump.criticality, pump.redundancy_group)
        for pump in workspace.fleet.pumps_by_device.get(device.id, ())
    )
    form = EnrolForm(
        format=ENROL_FORMAT,
        device=device.id,
        site=device.site,
        device_class=device.device_class,
        pumps=pumps,
        min_seq=trust.next_seq(),
        root=canonical.digest(trust.root_bytes()),
        at_ms=workspace.clock.now_ms(),
    )
    return form, sign_form(form, workspace.signing_key("deploy", device.site).signer)


def _row(workspace: Workspace, stick: Stick, device: str) -> AnswerRow:
    try:
        envelope, form = _kept(workspace, device)
        data = stick.fs.read_bytes(answer_place(stick.folder, device), ANSWER_MAX_BYTES)
        answer = check_answer(data, envelope, form)
        key_id = key_id_of(answer.public_key)
        _check_new(workspace, device, key_id)
    except FileNotFoundError:
        return AnswerRow(device, "", "", "", "it left no answer on the stick")
    except PumpdeckError as error:
        return AnswerRow(device, "", "", "", error.sentence())
    host_key = answer.host_keys[0] if answer.host_keys else ""
    return AnswerRow(device, key_id, key_words(answer.public_key), host_key)


def _check_new(workspace: Workspace, device: str, key_id: str) -> None:
    for other in workspace.fleet.devices:
        for row in workspace.store.devices.keys(other.id):
            if row.key_id == key_id and (other.id != device or row.ended_ms is not None):
                said = f"{other.id}, {row.ended or 'counts'}"
                raise TrustError("this key is known already", device, expected="a key of its own", found=said)


def _kept_path(workspace: Workspace, device: str) -> Path:
    return workspace.root / "enrolments" / device


def _keep_form(workspace: Workspace, device: str, envelope: bytes) -> None:
    path = _kept_path(workspace, device)
    workspace.fs.mkdir(path.parent)
    replace_file(workspace.fs, path, envelope)


def _kept(workspace: Workspace, device: str) -> tuple[bytes, EnrolForm]:
    """The form that was written here for a device, its envelope first.

    Raises:
        NotFoundError: none was.
    """
    workspace.fleet.device(device)
    try:
        envelope = workspace.fs.read_bytes(_kept_path(workspace, device), FORM_MAX_BYTES)
    except FileNotFoundError as error:
        raise NotFoundError("no form was written here", device, hint="pumpdeck devices enrol-stick") from error
    keys = workspace.trust(workspace.fleet.device(device).site).deploy_keys()
    payload = verify_dsse(envelope, FORM_PAYLOAD_TYPE, keys, FORM_MAX_BYTES)
    return envelope, canonical.decode(EnrolForm, payload, f"form of {device}", max_bytes=FORM_MAX_BYTES)
