from __future__ import annotations

from pathlib import Path

import pytest

from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_trainer.cache import KEEP_PACKS, PART_BYTES, PART_ENTRIES, FolderCache, NoCache, run_key
from support.forgetful_disk import ForgetfulDisk, Loss, PowerCut


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


def keys_of(count: int) -> list[str]:
    return [run_key("fit", inputs=str(number)) for number in range(count)]


def test_what_a_run_put_is_durable_in_parts_before_it_ends(tmp_path: Path) -> None:
    keys = keys_of(2 * PART_ENTRIES + 1)
    killed = cache(tmp_path)
    for key in keys:
        killed.put(key, key.encode())
    found = [cache(tmp_path).get(key) for key in keys]
    assert found == [key.encode() for key in keys[:-1]] + [None]
    killed.checkpoint()
    assert cache(tmp_path).get(keys[-1]) == keys[-1].encode()


def test_large_results_are_durable_sooner(tmp_path: Path) -> None:
    key = run_key("fit", inputs="large")
    cache(tmp_path).put(key, bytes(PART_BYTES))
    assert cache(tmp_path).get(key) == bytes(PART_BYTES)


def test_the_next_run_gathers_the_parts_of_a_killed_one(tmp_path: Path) -> None:
    keys = keys_of(PART_ENTRIES + 1)
    killed = cache(tmp_path)
    for key in keys[:-1]:
        killed.put(key, key.encode())
    after = cache(tmp_path)
    after.put(keys[-1], b"last")
    after.flush()
    assert len(list((tmp_path / "runs").iterdir())) == 2
    assert [cache(tmp_path).get(key) is not None for key in keys] == [True] * len(keys)


def test_parts_of_a_run_that_still_works_are_left_alone(tmp_path: Path) -> None:
    keys = keys_of(PART_ENTRIES)
    ended, working = cache(tmp_path), cache(tmp_path)
    ended.get(keys[0])
    for key in keys:
        working.put(key, key.encode())
    ended.put(run_key("fit", inputs="other"), b"other")
    ended.flush()
    assert cache(tmp_path).get(keys[0]) == keys[0].encode()
    working.flush()
    again = cache(tmp_path)
    assert again.get(keys[0]) and again.get(run_key("fit", inputs="other")) == b"other"
    assert len(list((tmp_path / "runs").iterdir())) == 3


def test_an_index_without_parts_is_still_read(tmp_path: Path) -> None:
    key = run_key("fit", inputs="a")
    one = cache(tmp_path)
    one.put(key, b"result")
    one.flush()
    assert b"parts" not in (tmp_path / "runs" / "index.json").read_bytes()
    assert cache(tmp_path).get(key) == b"result"


@pytest.mark.parametrize("loss", list(Loss))
def test_a_power_cut_at_any_step_loses_nothing_that_was_kept(loss: Loss) -> None:
    first, second = keys_of(2)
    folder = Path("/artifacts")
    for cut_at in range(100):
        disk = ForgetfulDisk()
        one = FolderCache(folder, disk)
        one.put(first, b"first")
        one.checkpoint()
        disk.sync_all()
        disk.cut_at = cut_at
        try:
            one.put(second, b"second")
            one.flush()
        except PowerCut:
            assert FolderCache(folder, disk.after_cut(loss, seed=cut_at)).get(first) == b"first"
            continue
        break
    assert 4 < cut_at < 99
    assert FolderCache(folder, disk.after_cut(loss)).get(second) == b"second"
