from __future__ import annotations

from pathlib import Path

import pytest

from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_trainer.cache import KEEP_PACKS, FolderCache, NoCache, run_key


def cache(folder: Path) -> FolderCache:
    return FolderCache(folder, RealFileSystem())


def test_what_was_flushed_is_found_by_the_next_run(tmp_path: Path) -> None:
    key = run_key("fit", inputs="a")
    first = cache(tmp_path)
    first.put(key, b"result")
    assert first.get(key) == b"result"
    assert cache(tmp_path).get(key) is None
    first.flush()
    assert cache(tmp_path).get(key) == b"result"


def test_any_part_of_a_key_makes_it_another(tmp_path: Path) -> None:
    base = {"inputs": "a", "spec": "b", "code": "c", "lock": "d", "seed": 1}
    keys = {run_key("fit", **base), run_key("evaluate", **base)}
    keys |= {run_key("fit", **{**base, name: "x"}) for name in base}
    assert len(keys) == 7


@pytest.mark.parametrize("damage", [b"", b"x", b"{}"])
def test_a_damaged_pack_or_index_counts_as_absent(tmp_path: Path, damage: bytes) -> None:
    key = run_key("fit", inputs="a")
    for victim in ("index.json", "pack"):
        folder = tmp_path / victim
        one = cache(folder)
        one.put(key, b"result")
        one.flush()
        paths = list((folder / "runs").iterdir())
        path = next(path for path in paths if (path.name == "index.json") == (victim == "index.json"))
        path.write_bytes(damage)
        again = cache(folder)
        assert again.get(key) is None
        again.put(key, b"second")
        again.flush()
        assert cache(folder).get(key) == b"second"


def test_a_changed_byte_in_a_pack_is_never_served(tmp_path: Path) -> None:
    key = run_key("fit", inputs="a")
    one = cache(tmp_path)
    one.put(key, b"result")
    one.flush()
    pack = next(path for path in (tmp_path / "runs").iterdir() if path.name != "index.json")
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    pack.write_bytes(bytes(data))
    assert cache(tmp_path).get(key) is None


def test_old_packs_go_and_the_newest_stay(tmp_path: Path) -> None:
    keys = [run_key("fit", inputs=str(number)) for number in range(KEEP_PACKS + 3)]
    for key in keys:
        one = cache(tmp_path)
        one.put(key, key.encode())
        one.flush()
    again = cache(tmp_path)
    assert [again.get(key) is not None for key in keys] == [False] * 3 + [True] * KEEP_PACKS
    assert len(list((tmp_path / "runs").iterdir())) == KEEP_PACKS + 1


def test_no_cache_remembers_nothing() -> None:
    none = NoCache()
    none.put("k", b"v")
    none.flush()
    assert none.get("k") is None
