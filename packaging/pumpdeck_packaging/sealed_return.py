"""A return on a stick that only the site's recipients can read: each item encrypted by itself, the list of items too.

    returns/<device>/<sha256>      one item, or the signed ReturnIndex, as age ciphertext named by the ciphertext's digest
    returns/<device>/return.json   signed SealedReturn envelope, written last: who may read, which files, in the index's order

Encryption lies outside: inside is exactly the return that a plain stick carries, and it is verified just the same. One item is
in memory at a time, on both sides. A finder sees the device's name, sizes and times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DigestMismatchError, FormatError, PumpdeckError, TooLargeError, TrustError
from pumpdeck_fleet.core.ids import check_digest
from pumpdeck_fleet.core.receipts import RETURN_PAYLOAD_TYPE, ReturnIndex, ReturnItem
from pumpdeck_packaging.age_box import AgeIdentity, WrongKeyError, decrypt, encrypt, sealed_bytes_max
from pumpdeck_packaging.bundle_returns import (
    ENVELOPE_MAX_BYTES,
    ITEM_MAX_BYTES,
    MAX_ITEMS,
    ReturnWriter,
    read_named,
)
from pumpdeck_packaging.bundle_stick import Stick
from pumpdeck_packaging.signing import verify_dsse

SEALED_FORMAT = 1
SEALED_PAYLOAD_TYPE = "application/vnd.pumpdeck.sealed-return.v1+json"


@dataclass(frozen=True, slots=True)
class SealedFile:
    """Digest and length of a ciphertext."""

    digest: str
    bytes: int


@dataclass(frozen=True, slots=True)
class SealedReturn:
    """What a device signs over an encrypted return. `items` are in the order of the index that `index` holds.

    `age_key` is the device's own: what is meant for it alone is encrypted to that.
    """

    format: int
    device: str
    counter: int
    at_ms: int
    recipients: Mapping[str, str]
    index: SealedFile
    items: tuple[SealedFile, ...]
    age_key: str = ""


@dataclass(frozen=True, slots=True)
class ReturnSigner:
    """The device's two words on a return: the index over its items, and the list of what it became."""

    next_index: Callable[[tuple[ReturnItem, ...]], tuple[ReturnIndex, bytes]]
    sign: Callable[[bytes, str], bytes]
    age_key: str = ""


@dataclass(frozen=True, slots=True)
class WrittenReturn:
    """An encrypted return on a stick: what is in it, and the file that each item became, by the item's digest."""

    items: tuple[ReturnItem, ...]
    files: Mapping[str, SealedFile]


@dataclass(frozen=True, slots=True)
class ReturnReaders:
    """Names and keys of those who may read, and the files that were encrypted to exactly them before, by the item inside."""

    keys: Mapping[str, str]
    known: Mapping[str, Sequence[SealedFile]] = field(default_factory=dict)


def write_sealed(
    stick: Stick, device: str, readers: ReturnReaders, items: Iterable[tuple[ReturnItem, bytes]], signer: ReturnSigner
) -> WrittenReturn:
    """Put an encrypted return on the stick; the one before counts until `return.json` is replaced. What lies there whole from an
    earlier visit stays as it is.

    Raises:
        StickFailedError: the stick gives back other bytes.
        FormatError: a reader's key is not one.
        OSError: use inside `stick_errors`.
    """
    writer = ReturnWriter(stick, device)
    keys = list(readers.keys.values())
    listed: list[ReturnItem] = []
    files: list[SealedFile] = []
    for item, data in items:
        here = next((one for one in readers.known.get(item.digest, ()) if writer.keep(one.digest, one.bytes)), None)
        files.append(here or _put(writer, encrypt(data, keys, device)))
        listed.append(item)
    index, envelope = signer.next_index(tuple(listed))
    sealed_index = _put(writer, encrypt(envelope, keys, device))
    counts = (index.counter, index.at_ms)
    whole = SealedReturn(SEALED_FORMAT, device, *counts, dict(readers.keys), sealed_index, tuple(files), signer.age_key)
    writer.finish(signer.sign(canonical.encode(whole), SEALED_PAYLOAD_TYPE))
    return WrittenReturn(tuple(listed), {item.digest: file for item, file in zip(listed, files, strict=True)})


def is_sealed(envelope: bytes) -> bool:
    """True when a `return.json` says that the return is encrypted; nothing in it is believed yet."""
    try:
        plain = canonical.parse_json(envelope, "return.json", max_bytes=ENVELOPE_MAX_BYTES)
    except PumpdeckError:
        return False
    return isinstance(plain, dict) and plain.get("payloadType") == SEALED_PAYLOAD_TYPE


class OpenedReturn:
    """An encrypted return whose index was read; items are decrypted one by one as they are asked for."""

    def __init__(
        self, stick: Stick, envelope: bytes, device: str, keys: Mapping[str, str], identities: Sequence[AgeIdentity]
    ) -> None:
        """Believe the device's signature first, then decrypt the index.

        Raises:
            TrustError: another key signed it, it speaks for another device, or none of `identities` may read it.
            DamagedError: a file is not what the device signed. NotFoundError: it is gone.
        """
        self._stick = stick
        self._device = device
        self._identities = identities
        payload = verify_dsse(envelope, SEALED_PAYLOAD_TYPE, keys, ENVELOPE_MAX_BYTES)
        self.sealed = _checked(payload, device)
        self.envelope = self._open(self.sealed.index, ENVELOPE_MAX_BYTES, "index")
        inner = verify_dsse(self.envelope, RETURN_PAYLOAD_TYPE, keys, ENVELOPE_MAX_BYTES)
        index = canonical.decode(ReturnIndex, inner, f"return of {device}", max_bytes=ENVELOPE_MAX_BYTES)
        if (index.device, index.counter, len(index.items)) != (device, self.sealed.counter, len(self.sealed.items)):
            raise TrustError("contradicts the list around it", f"return of {device}")
        self._files = {item.digest: file for item, file in zip(index.items, self.sealed.items, strict=True)}

    def read_item(self, item: ReturnItem) -> bytes:
        """The bytes of an item of the index.

        Raises:
            NotFoundError, DamagedError: its file is gone or not what was signed.
        """
        return self._open(self._files[item.digest], item.bytes, str(item.kind))

    def _open(self, file: SealedFile, max_bytes: int, kind: str) -> bytes:
        which = f"{kind} {file.digest[:12]} of {self._device}"
        if not self._identities:
            raise no_reader(self._device, self.sealed.recipients)
        data = read_named(self._stick.fs, self._stick.folder, self._device, file.digest, file.bytes)
        if canonical.digest(data) != file.digest:
            raise DigestMismatchError("was damaged on the stick", which, hint="take the stick to the device again")
        try:
            return decrypt(data, self._identities, which, max_bytes)
        except WrongKeyError as error:
            raise no_reader(self._device, self.sealed.recipients) from error


def no_reader(device: str, recipients: Mapping[str, str]) -> TrustError:
    """The error for somebody who holds none of the keys: it names who does."""
    names = ", ".join(sorted(recipients)) or "nobody"
    return TrustError(
        "is encrypted, and no key here opens it",
        f"return of {device}",
        expected=f"the key of {names}",
        hint="take the stick in where one of them works, or give the key with --key-file recipient=PATH",
    )


def _put(writer: ReturnWriter, sealed: bytes) -> SealedFile:
    digest = canonical.digest(sealed)
    writer.put(digest, sealed)
    return SealedFile(digest, len(sealed))


def _checked(payload: bytes, device: str) -> SealedReturn:
    what = f"return of {device}"
    found = canonical.decode(SealedReturn, payload, what, max_bytes=ENVELOPE_MAX_BYTES)
    if found.format != SEALED_FORMAT:
        raise FormatError("has an unknown format", what, expected=SEALED_FORMAT, found=found.format)
    if found.device != device:
        raise TrustError("speaks for another device", "return", expected=device, found=found.device)
    if len(found.items) > MAX_ITEMS:
        raise TooLargeError("holds too many items", what, expected=f"at most {MAX_ITEMS}", found=len(found.items))
    limits = [(found.index, ENVELOPE_MAX_BYTES), *((item, ITEM_MAX_BYTES) for item in found.items)]
    for file, limit in limits:
        check_digest(file.digest, what)
        if not 0 < file.bytes <= sealed_bytes_max(limit):
            raise TooLargeError("is too large", f"{what} {file.digest[:12]}", found=file.bytes)
    return found


__all__ = [
    "OpenedReturn",
    "ReturnReaders",
    "ReturnSigner",
    "SealedFile",
    "SealedReturn",
    "WrittenReturn",
    "is_sealed",
    "no_reader",
    "write_sealed",
]
