from __future__ import annotations

import numpy as np

from pumpdeck_console.operations.views import (
    HEALTH_WORDS,
    NO_HEALTH,
    Words,
    health_counts,
    health_word,
    site_nodes,
    spark_levels,
)
from pumpdeck_fleet.core.health import Health
from support.fleet_views import fleet_view


def test_words_are_sorted_so_that_code_order_is_word_order() -> None:
    words = Words.of(["tern", None, "auk", "tern", ""])
    assert words.words == ("auk", "tern")
    assert [words[row] for row in range(5)] == ["tern", "", "auk", "tern", ""]
    assert words.codes.tolist() == [1, -1, 0, 1, -1]


def test_health_words_follow_the_core_numbers() -> None:
    assert [HEALTH_WORDS[health] for health in Health] == [health.name for health in Health]
    assert health_word(NO_HEALTH) == "-"


def test_site_nodes_count_every_pump_once_and_put_the_worst_site_first() -> None:
    view = fleet_view(240)
    nodes = site_nodes(view)
    assert sum(node.pumps for node in nodes) == 240
    assert [node.worst for node in nodes] == sorted((node.worst for node in nodes), reverse=True)
    for node in nodes:
        rows = view.sites.codes == view.sites.words.index(node.site)
        assert node.worst == view.health[rows].max()
        assert node.counts[Health.ALARM] == (view.health[rows] == Health.ALARM).sum()


def test_a_pump_without_facts_is_counted_last() -> None:
    view = fleet_view(8)
    view.health[:] = NO_HEALTH
    assert health_counts(view) == (0, 0, 0, 0, 0, 0, 8)
    assert {node.worst for node in site_nodes(view)} == {NO_HEALTH}


def test_an_empty_fleet_has_no_sites() -> None:
    assert site_nodes(fleet_view(0)) == ()


def test_spark_levels_compare_with_the_limit() -> None:
    hours = np.full((2, 24), np.nan)
    hours[0, 20:] = [0.1, 3.9, 4.0, 9.0]
    hours[1, 23] = 5.0
    levels = spark_levels(hours, [4.0, np.nan])
    assert levels[0, :20].tolist() == [0] * 20
    assert levels[0, 20:].tolist() == [1, 6, 7, 8]
    assert levels[1, 23] == 6
