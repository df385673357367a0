"""Rules of the house that a linter does not know: sizes, time and chance as arguments, portable calls, text encodings."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

from support.source_tree import calls, dotted, product_files, short, suite_files, tree_of

LINES_MAX = 500
FUNCTION_LINES_MAX = 60

# Where the world comes in: the clock itself, processes that wait and stop, the front ends and what they alone call.
EDGES = (
    "fleet/pumpdeck_fleet/core/clock.py",
    "fleet/pumpdeck_fleet/transports/",
    "console/",
    "sample_fleet/",
    "packaging/pumpdeck_agent/main.py",
)
NOW = {
    "time.time",
    "time.time_ns",
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "date.today",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.date.today",
}
GENERATORS = (".default_rng", ".Random", ".Generator", ".PCG64", ".Philox", ".SeedSequence")
CHANCE = {"uuid.uuid1", "uuid.uuid4", "uuid4", "np.random.seed", "random.seed"}
POSIX_ONLY = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"}
POSIX_CALLS = {
    "os.fork", "os.forkpty", "os.getuid", "os.geteuid", "os.setuid", "os.setgid", "os.getpgid", "os.killpg", "os.setsid",
    "os.mkfifo", "os.sched_setaffinity", "os.wait4", "os.chown", "os.uname", "signal.alarm", "signal.setitimer",
}  # fmt: skip
POSIX_HOMES = (
    "packaging/pumpdeck_agent/launcher.py",
    "packaging/pumpdeck_agent/platform_posix.py",
    "packaging/pumpdeck_agent/trial_pool.py",
    "console/pumpdeck_console/tui/terminal",
)


Finder = Callable[[Path], Iterator[str]]


def offences(find: Finder, homes: tuple[str, ...] = ()) -> list[str]:
    """What `find` says about every product file outside `homes`."""
    files = [path for path in product_files() if not short(path).startswith(homes)]
    assert len(files) > 150
    return [f"{short(path)}: {words}" for path in files for words in find(path)]


def test_files_and_functions_stay_small() -> None:
    def find(path: Path) -> Iterator[str]:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > LINES_MAX:
            yield f"{lines} lines"
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    yield f"{node.name} has {lines} lines"

    assert offences(find) == []


def test_time_and_chance_are_arguments() -> None:
    def find(path: Path) -> Iterator[str]:
        for name, call in calls(tree_of(path)):
            is_global = name.startswith(("random.", "np.random.", "numpy.random.")) and name.count(".") < 3
            is_seeded = name.endswith(GENERATORS) and bool(call.args or call.keywords)
            if name in NOW | CHANCE or (is_global and not is_seeded):
                yield f"line {call.lineno}: {name}"

    assert offences(find, EDGES) == []


def test_posix_only_calls_stand_in_their_adapter() -> None:
    def find(path: Path) -> Iterator[str]:
        guarded = _guarded_lines(tree_of(path))
        for node in ast.walk(tree_of(path)):
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            if isinstance(node, ast.ImportFrom) and node.module:
                names = {node.module}
            if isinstance(node, ast.Attribute):
                names = {dotted(node)}
            for name in names & (POSIX_ONLY | POSIX_CALLS):
                if node.lineno not in guarded:
                    yield f"line {node.lineno}: {name} does not exist on Windows"

    assert offences(find, POSIX_HOMES) == []


def _guarded_lines(tree: ast.Module) -> set[int]:
    """Lines under an `if` or beside an `or` that asks for the platform, or under a `try` that takes ImportError."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        is_asked = isinstance(node, ast.If | ast.IfExp) and _asks_platform(node.test)
        is_asked = is_asked or (isinstance(node, ast.BoolOp) and _asks_platform(node.values[0]))
        if isinstance(node, ast.Try):
            caught = " ".join(ast.dump(handler.type) for handler in node.handlers if handler.type is not None)
            is_asked = any(f"'{name}'" in caught for name in ("ImportError", "ModuleNotFoundError", "AttributeError"))
        if is_asked:
            lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        if isinstance(node, ast.FunctionDef):
            lines.update(_after_leaving(node))
    return lines


def _after_leaving(function: ast.FunctionDef) -> range:
    """The lines behind an `if` about the platform that leaves the function."""
    for node in function.body:
        if isinstance(node, ast.If) and _asks_platform(node.test) and isinstance(node.body[-1], ast.Return | ast.Raise):
            return range(node.lineno, (function.end_lineno or node.lineno) + 1)
    return range(0)


def _asks_platform(test: ast.expr) -> bool:
    words = ast.dump(test)
    return any(word in words for word in ("'platform'", "'hasattr'", "_WINDOWS", "IS_WINDOWS", "attr='name'"))


def test_text_files_name_their_encoding() -> None:
    """Without it Windows reads and writes cp1252, and turns every newline into two bytes."""

    def find(path: Path) -> Iterator[str]:
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else dotted(node.func)
            given = {keyword.arg for keyword in node.keywords}
            if name in ("read_text", "write_text") and "encoding" not in given:
                yield f"line {node.lineno}: {name} without encoding"
            if name == "write_text" and "newline" not in given:
                yield f"line {node.lineno}: write_text without newline"
            is_open = (isinstance(node.func, ast.Name) and name == "open") or _is_path_open(node)
            if is_open and "b" not in _mode(node) and "encoding" not in given:
                yield f"line {node.lineno}: open without encoding"

    assert offences(find) == []


def _is_path_open(node: ast.Call) -> bool:
    return (
        isinstance(node.func, ast.Attribute) and node.func.attr == "open" and "path" in dotted(node.func.value).lower()
    )


def _mode(node: ast.Call) -> str:
    place = 1 if isinstance(node.func, ast.Name) else 0
    found = [keyword.value for keyword in node.keywords if keyword.arg == "mode"] or node.args[place : place + 1]
    if not found:
        return "r"
    # A mode that is computed is not judged here.
    return str(found[0].value) if isinstance(found[0], ast.Constant) else "b"


FORBIDDEN_WORDS = ("TODO", "FIXME", "XXX", "HACK")


def test_nothing_is_left_for_later() -> None:
    """Real or not at all."""

    def find(path: Path) -> Iterator[str]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            yield from (f"line {number}: {word}" for word in FORBIDDEN_WORDS if word in line)

    assert offences(find) == []


def test_a_skipped_test_says_why() -> None:
    for path in suite_files():
        for name, call in calls(tree_of(path)):
            if name in ("pytest.skip", "pytest.mark.skip", "pytest.mark.skipif", "pytest.mark.xfail"):
                given = {keyword.arg for keyword in call.keywords}
                has_reason = "reason" in given or (name == "pytest.skip" and call.args)
                assert has_reason, f"{short(path)}:{call.lineno}: {name} without a reason"
