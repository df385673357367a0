"""Where private keys live, looked up in one order, first hit wins: key-file option, systemd credential, ssh-agent, keyring,
passphrase-protected file, and a plain 0600 file only where insecure storage is allowed.

A secret is never an argument, never logged and never in the workspace. `probe` says where each key would be found (`doctor`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from pumpdeck_console.key_files import key_file_bytes, open_key, read_key_file, write_key_file
from pumpdeck_console.key_places import (
    INSECURE_WARNING,
    AskPassphrase,
    KeyPlaces,
    NotAllowedHereError,
    PlaceReport,
    Secret,
    SecretForm,
    SecretPlaces,
    Source,
    check_outside,
    report_of,
)
from pumpdeck_console.os_keyring import OsKeyring
from pumpdeck_console.ssh_agent import AgentSigner, SshAgent
from pumpdeck_fleet.core.errors import FormatError, NotFoundError, TrustError, UnreachableError
from pumpdeck_fleet.core.ids import check_name
from pumpdeck_fleet.core.ports import FileSystem, Signer
from pumpdeck_packaging.signing import (
    PRIVATE_KEY_MAX_BYTES,
    Ed25519Signer,
    PassphraseNeededError,
    is_protected,
    key_id_of,
    openssh_line,
)


@dataclass(frozen=True, slots=True)
class FoundKey:
    """A key that can sign, and where it was found. `warning` is empty or a sentence that every status repeats."""

    name: str
    source: Source
    where: str
    signer: Signer
    public_pem: str
    warning: str = ""

    @property
    def openssh_public(self) -> str:
        """The public half as an OpenSSH line: what a device's `authorized_keys` holds."""
        return openssh_line(self.public_pem)


@dataclass(frozen=True, slots=True)
class FoundLogin:
    """What SSH logs in with: the text of an OpenSSH private key, or the keys of the ssh-agent."""

    source: Source
    where: str
    key_text: str = field(default="", repr=False)
    use_agent: bool = False
    warning: str = ""


class Credentials:
    """Finds and keeps private keys of one person on this computer. Keys opened with a passphrase stay open in this object."""

    def __init__(
        self,
        places: KeyPlaces,
        fs: FileSystem,
        environ: Mapping[str, str],
        ask_passphrase: AskPassphrase | None = None,
        keyring: OsKeyring | None = None,
    ) -> None:
        self._secrets = SecretPlaces(places, fs, environ, SecretForm(PRIVATE_KEY_MAX_BYTES, is_protected), keyring)
        self._places = places
        self._fs = fs
        self._environ = environ
        self._ask = ask_passphrase
        self._open: dict[str, FoundKey] = {}

    def find(self, name: str, wanted: Collection[str] = ()) -> FoundKey:
        """The first key of that name, in the order of `Source`. With `wanted`, one of these key ids.

        Raises:
            NotFoundError: no place has it; the hint says what each of them answered.
            TrustError: a given key file holds another key, others can read a key, or the passphrase is wrong.
        """
        check_name(name, "key name")
        found = self._open.get(name)
        if found is not None and (not wanted or found.signer.key_id in wanted):
            return found
        answers = []
        for source, look in self._looks().items():
            try:
                key = look(name, self._expected(name, wanted))
            except (UnreachableError, PassphraseNeededError, NotAllowedHereError) as error:
                answers.append(f"{source}: {error.what}")
                continue
            if key is None:
                continue
            if wanted and key.signer.key_id not in wanted:
                if source is Source.KEY_FILE:
                    raise TrustError(
                        "holds another key", key.where, expected=_short(wanted), found=key.signer.key_id[:12]
                    )
                answers.append(f"{source}: holds another key ({key.signer.key_id[:12]})")
                continue
            self._open[name] = key
            return key
        tried = "; ".join(answers) or "no place has it"
        raise NotFoundError("no private key", name, expected=_short(wanted), found=tried, hint=self._hint(name))

    def other_names(self, role: str) -> tuple[str, ...]:
        """Names of further keys of a role that were made on this computer, `release-2` and so on, the newest first."""
        given = {name for name in self._places.key_files if name.startswith(f"{role}-")}
        here = self._fs.listdir(self._places.folder) if self._fs.exists(self._places.folder) else []
        kept = {name.removesuffix(".pub") for name in here if re.fullmatch(rf"{re.escape(role)}-[0-9]{{1,3}}\.pub", name)}
        return tuple(sorted(given | kept, key=lambda name: (len(name), name), reverse=True))

    def public_ids(self) -> dict[str, str]:
        """Names by key id of the keys whose public halves lie in the key folder; no private key is opened."""
        here = self._fs.listdir(self._places.folder) if self._fs.exists(self._places.folder) else []
        found = {}
        for name in sorted(here):
            if name.endswith(".pub"):
                for key_id in self._expected(name.removesuffix(".pub"), ()):
                    found[key_id] = name.removesuffix(".pub")
        return found

    def new_name(self, role: str) -> str:
        """The name that the next key of a role gets here: the role itself while there is none."""
        if not self._fs.exists(self._secrets.public_path(role)) and not self._fs.exists(self._secrets.private_path(role)):
            return role
        numbers = [int(name.rpartition("-")[2]) for name in self.other_names(role) if name.rpartition("-")[2].isdecimal()]
        return f"{role}-{max(numbers, default=1) + 1}"

    def login(self, name: str = "ssh") -> FoundLogin:
        """What SSH logs in to devices with.

        Raises:
            As `find`.
        """
        for given in (Source.KEY_FILE, Source.SYSTEMD):
            key = self._looks()[given](name, frozenset())
            if key is not None:
                return _login_of(key)
        if not self._fs.exists(self._secrets.public_path(name)) and (agent := SshAgent.from_environ(self._environ)):
            # No key of our own was ever made here: the person's agent is what they log in with everywhere else.
            try:
                if agent.identities():
                    return FoundLogin(Source.SSH_AGENT, "ssh-agent", use_agent=True)
            except UnreachableError:
                pass
        return _login_of(self.find(name))

    def probe(self, name: str) -> tuple[PlaceReport, ...]:
        """What each place says, without asking for a passphrase."""
        expected = self._expected(name, ())
        looks = self._looks(quiet=True)
        return tuple(
            report_of(source, lambda look=look: look(name, expected), lambda key: key.where)  # type: ignore[misc]
            for source, look in looks.items()
        )

    def save(self, name: str, key: Ed25519Signer, source: Source, passphrase: str = "") -> FoundKey:
        """Keep a new key in the keyring, in a protected file or, where that is allowed, in a plain 0600 file.

        The public half goes beside it as `<name>.pub`.

        Raises:
            UsageError: no passphrase for a protected file, insecure storage not allowed, or a place inside the workspace.
            TrustError: there is a key of that name already.
            UnreachableError: no real keyring.
        """
        check_name(name, "key name")
        self._secrets.check_file(source, passphrase)
        protection = passphrase if source is Source.PROTECTED_FILE else ""
        text = key.private_pem().decode("ascii")
        where = self._secrets.put(source, name, text, lambda: key_file_bytes(key, protection))
        self._secrets.put_public(name, key.openssh_public)
        warning = INSECURE_WARNING if source is Source.PLAIN_FILE else ""
        self._open[name] = FoundKey(name, source, where, key, key.public_pem, warning)
        return self._open[name]

    def _looks(self, *, quiet: bool = False) -> dict[Source, Callable[[str, Collection[str]], FoundKey | None]]:
        ask = None if quiet else self._ask

        def kept(source: Source) -> Callable[[str, Collection[str]], FoundKey | None]:
            return lambda name, _wanted: self._opened(name, self._secrets.look(source, name), ask)

        return {source: self._from_agent if source is Source.SSH_AGENT else kept(source) for source in Source}

    def _opened(self, name: str, secret: Secret | None, ask: AskPassphrase | None) -> FoundKey | None:
        if secret is None:
            return None
        # A keyring and a systemd credential stand for a person or a service: nobody is asked there.
        is_asked = secret.source in (Source.KEY_FILE, Source.PROTECTED_FILE)
        key = open_key(secret.data, secret.where, ask if is_asked else None)
        is_open = secret.source in (Source.KEY_FILE, Source.PLAIN_FILE) and not is_protected(secret.data)
        return FoundKey(name, secret.source, secret.where, key, key.public_pem, INSECURE_WARNING if is_open else "")

    def _from_agent(self, name: str, wanted: Collection[str]) -> FoundKey | None:
        agent = SshAgent.from_environ(self._environ)
        if agent is None or not wanted:
            return None
        for identity in agent.identities():
            if identity.key_id in wanted:
                signer = AgentSigner(agent, identity)
                where = f"ssh-agent ({identity.comment})" if identity.comment else "ssh-agent"
                return FoundKey(name, Source.SSH_AGENT, where, signer, identity.public_pem)
        return None

    def _expected(self, name: str, wanted: Collection[str]) -> Collection[str]:
        """Key ids to look for in an agent: those asked for, else the key whose public half lies in the key folder."""
        line = "" if wanted else self._secrets.public(name)
        if not line:
            return wanted
        try:
            return {key_id_of(line)}
        except FormatError:
            return ()

    def _hint(self, name: str) -> str:
        return f"give it with --key-file {name}=PATH, or make keys with: pumpdeck trust init"


def _login_of(key: FoundKey) -> FoundLogin:
    if isinstance(key.signer, Ed25519Signer):
        return FoundLogin(key.source, key.where, key.signer.openssh_pem().decode("ascii"), warning=key.warning)
    return FoundLogin(key.source, key.where, use_agent=True)


def _short(key_ids: Collection[str]) -> str | None:
    return ", ".join(sorted(key_id[:12] for key_id in key_ids)) or None


__all__ = [
    "INSECURE_WARNING",
    "AskPassphrase",
    "Credentials",
    "FoundKey",
    "FoundLogin",
    "KeyPlaces",
    "NotAllowedHereError",
    "PlaceReport",
    "Source",
    "check_outside",
    "read_key_file",
    "write_key_file",
]
