"""What must be done on a device so that the agent runs there: a pure decision over what a look at the device said."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from pumpdeck_fleet.core.errors import FormatError, RefusedError
from pumpdeck_fleet.core.sizes import size_words
from pumpdeck_packaging.device_service import UNIT_NAME, ServicePlace, authorized_line

AGENT_ROOT = "/var/lib/pumpdeck-agent"
# The agent, its libraries unpacked, packages and outbox.
_NEEDED_KB = 400 * 1024
_CPYTHON = ((3, 11), (3, 14))

LOOK = """
root=$1; user=$2; s=
echo "login=$(id -un)"
if [ "$(id -u)" = 0 ]; then echo rights=root
elif sudo -n true 2>/dev/null; then echo rights=sudo; s="sudo -n"
else echo rights=; fi
id -u "$user" >/dev/null 2>&1 && echo user=1 || echo user=
[ -d /run/systemd/system ] && echo systemd=1 || echo systemd=
echo "machine=$(uname -m)"
py=$(command -v python3 || true); echo "python=$py"
if [ -n "$py" ]; then
  "$py" -c 'import sys; print("cpython=%d.%d" % sys.version_info[:2])'
  "$py" -s -c 'import numpy, onnxruntime, cryptography, _cffi_backend, pyrage' 2>/dev/null && echo libraries=1 || echo libraries=
fi
d=$root; while [ ! -d "$d" ]; do d=$(dirname "$d"); done
echo "free_kb=$(df -Pk "$d" | awk 'NR==2 {print $4}')"
$s test -f "$root/agent/slot.1" && echo settled=1 || echo settled=
$s test -f "$root/agent.json" && echo enrolled=1 || echo enrolled=
$s test -f "/etc/systemd/system/$3" && echo "unit=$($s sha256sum "/etc/systemd/system/$3" | cut -d' ' -f1)" || echo unit=
"""


@dataclass(frozen=True, slots=True)
class DeviceLook:
    """What a look at a device said. `rights`: `root`, `sudo`, or empty for a plain user; `unit`: digest of the unit there."""

    login: str
    rights: str
    user: bool
    systemd: bool
    machine: str
    python: str
    cpython: str
    libraries: bool
    free_kb: int
    settled: bool
    enrolled: bool
    unit: str

    @property
    def target(self) -> str:
        """The kind of computer, as wheels are named."""
        return f"{self.machine}-cp{self.cpython.replace('.', '')}"


def parse_look(text: str, device: str) -> DeviceLook:
    """The look from its lines. Raises: FormatError: a line is missing, so the device has no usual shell."""
    said = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    try:
        return DeviceLook(
            login=said["login"],
            rights=said["rights"],
            user=bool(said["user"]),
            systemd=bool(said["systemd"]),
            machine=said["machine"],
            python=said["python"],
            cpython=said.get("cpython", ""),
            libraries=bool(said.get("libraries", "")),
            free_kb=int(said["free_kb"]),
            settled=bool(said["settled"]),
            enrolled=bool(said["enrolled"]),
            unit=said["unit"],
        )
    except (KeyError, ValueError) as error:
        raise FormatError("gave no usable look at itself", device, found=str(error)[:100]) from error


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do on the device. `command` runs under `sh -c` with `data` as its input; `skip` says why it is not done.

    `by_hand`: somebody must run it there, since this login may not; `title` says what it does.
    """

    name: str
    title: str
    command: str = ""
    data: bytes = b""
    skip: str = ""
    by_hand: str = ""


@dataclass(frozen=True, slots=True)
class InstallWish:
    """What the device shall have. `files`: what `init` reads, by name; `settle`: the words after `settle`."""

    place: ServicePlace
    unit: str
    unit_digest: str
    public_key: str
    comment: str
    settle: tuple[str, ...]
    files: Mapping[str, bytes]
    staging: str


def check_look(look: DeviceLook, wish: InstallWish, device: str) -> None:
    """Raises: RefusedError: the agent cannot run there, or this login cannot put it there."""
    version = tuple(int(part) for part in look.cpython.split(".")) if look.cpython else ()
    if not look.python or version < _CPYTHON[0]:
        raise RefusedError("has no Python for the agent", device, expected="python3 3.11 or newer", found=look.cpython or "none")
    if not look.settled and look.free_kb < _NEEDED_KB:
        needed, free = (size_words(amount * 1024) for amount in (_NEEDED_KB, look.free_kb))
        raise RefusedError("has no room for the agent", device, expected=needed, found=free)
    if look.login != wish.place.user and not look.rights:
        raise RefusedError(
            f"lets {look.login} neither become root nor {wish.place.user}",
            device,
            expected="root, or sudo without a password",
            hint=f"log in as another user with --as, or as {wish.place.user} itself",
        )


def decide_steps(look: DeviceLook, wish: InstallWish) -> tuple[Step, ...]:
    """Everything to do, in order; what is done already, or cannot be done here, says so."""
    return (
        _user(look, wish),
        _folder(look, wish),
        _settle(look, wish),
        _init(look, wish),
        _key(look, wish),
        _service(look, wish),
    )


def _root(look: DeviceLook) -> str:
    return "sudo -n " if look.rights == "sudo" else ""


def _as_agent(look: DeviceLook, wish: InstallWish) -> str:
    if look.login == wish.place.user:
        return ""
    user = shlex.quote(wish.place.user)
    return f"runuser -u {user} -- " if look.rights == "root" else f"sudo -n -u {user} "


def _user(look: DeviceLook, wish: InstallWish) -> Step:
    title = f"make the user {wish.place.user}, who may do nothing but this"
    if look.user:
        return Step("user", title, skip="is there")
    words = ["useradd", "--system", "--home-dir", wish.place.root, "--no-create-home", "--shell", "/bin/sh", "--password", "*"]
    return Step("user", title, _root(look) + shlex.join([*words, wish.place.user]))


def _folder(look: DeviceLook, wish: InstallWish) -> Step:
    title = f"make {wish.place.root}, readable by {wish.place.user} alone"
    if look.enrolled:
        return Step("folder", title, skip="is there")
    owner = ["-o", wish.place.user] if look.login != wish.place.user else []
    make = shlex.join(["install", "-d", "-m", "0700", *owner, wish.place.root])
    return Step("folder", title, _root_if_needed(look, wish) + make)


def _root_if_needed(look: DeviceLook, wish: InstallWish) -> str:
    return "" if look.login == wish.place.user else _root(look)


def _hand_over(look: DeviceLook, wish: InstallWish) -> str:
    """Shell words that put what was sent where the agent's user can read it."""
    sudo, sent = _root_if_needed(look, wish), shlex.quote(f"{wish.place.root}/sent")
    owner = "" if look.login == wish.place.user else f" && {sudo}chown -R {shlex.quote(wish.place.user)} {sent}"
    return f"{sudo}rm -rf {sent} && {sudo}cp -r {wish.staging} {sent}{owner}"


def _settle(look: DeviceLook, wish: InstallWish) -> Step:
    title = "put agent and libraries into the first slot"
    if look.settled:
        return Step("agent", title, skip="an agent is there; change it with: pumpdeck devices upgrade")
    place, sent = wish.place, f"{wish.place.root}/sent"
    run = shlex.join([place.python, "-s", f"{sent}/agent.pyz", "settle", "--root", place.root, *wish.settle])
    return Step("agent", title, f"{_hand_over(look, wish)} && {_as_agent(look, wish)}{run}")


def _init(look: DeviceLook, wish: InstallWish) -> Step:
    title = "make the device key, on the device"
    if look.enrolled:
        return Step("identity", title, skip="is there")
    place, sent = wish.place, f"{wish.place.root}/sent"
    files = ["--config", f"{sent}/agent.json", "--trusted-root", f"{sent}/root.json"]
    run = shlex.join([place.python, "-s", f"{place.root}/agent/launch.py", "init", "--root", place.root, *files])
    return Step("identity", title, f"{_hand_over(look, wish)} && {_as_agent(look, wish)}{run}")


def _key(look: DeviceLook, wish: InstallWish) -> Step:
    title = "let the console in: its SSH key may hold the conversation and nothing else"
    line = authorized_line(wish.place, wish.public_key, wish.comment)
    if look.login == wish.place.user:
        reason = f"{wish.place.user} is who you log in as: the line would lock you out"
        return Step("ssh key", title, skip=reason, by_hand=f"add to authorized_keys of {wish.place.user}: {line}")
    file = shlex.quote(f"{wish.place.root}/.ssh/authorized_keys")
    # Beside and renamed: a cut leaves the old lines or the new ones.
    script = (
        f"umask 077; mkdir -p {shlex.quote(wish.place.root + '/.ssh')}; touch {file}; IFS= read -r line; "
        f'grep -qxF -- "$line" {file} || {{ {{ cat {file}; printf "%s\\n" "$line"; }} > {file}.part && mv {file}.part {file}; }}'
    )
    return Step("ssh key", title, f"{_as_agent(look, wish)}sh -c {shlex.quote(script)}", (line + "\n").encode())


def _service(look: DeviceLook, wish: InstallWish) -> Step:
    title = "run it as a hardened service"
    path = f"/etc/systemd/system/{UNIT_NAME}"
    by_hand = f"run under whatever starts services there, as {wish.place.user}: {wish.place.command('serve')}"
    if not look.systemd:
        return Step("service", title, skip="there is no systemd", by_hand=by_hand)
    if not look.rights:
        return Step("service", title, skip=f"{look.login} may not install services", by_hand=by_hand)
    if look.unit == wish.unit_digest:
        return Step("service", title, skip="is there")
    sudo = _root(look)
    write = f"{sudo}sh -c {shlex.quote(f'cat > {path}.part && mv {path}.part {path}')}"
    start = f"{sudo}systemctl daemon-reload && {sudo}systemctl enable {UNIT_NAME} && {sudo}systemctl restart {UNIT_NAME}"
    return Step("service", title, f"{write} && {start}", wish.unit.encode())
