"""Checks of the machine-learning operators of an imported graph: lists that fit each other, and trees that are trees.

A tree with a circle in it scores for ever as soon as a row leads there, and a place beyond the end of a list reads foreign
memory. Neither need happen in a trial, so both are looked for in the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pumpdeck_fleet.core.errors import RefusedError
from pumpdeck_trainer.foreign_reader import Node

COLUMNS_MAX = 4096
CLASSES_MAX = 256
LEAF = b"LEAF"
_MODES = (b"BRANCH_LEQ", b"BRANCH_LT", b"BRANCH_GTE", b"BRANCH_GT", b"BRANCH_EQ", b"BRANCH_NEQ", LEAF)


def check_ml_node(node: Node, which: str) -> None:
    """Raises: RefusedError - lists of the node do not fit each other, it works on strings, or a tree is none."""
    strings = [name for name in node.attributes if name.endswith("_strings") or name == "string_vocabulary"]
    if strings:
        hint = "give it classes that are whole numbers"
        raise RefusedError("works on strings, which an imported graph may not", which, found=strings[0], hint=hint)
    if node.op.startswith("TreeEnsemble"):
        _check_trees(node, which)
    elif node.op.startswith("SVM"):
        _check_vectors(node, which)
    elif node.op.startswith("Linear"):
        _check_linear(node, which)
    wanted = columns_of(node)
    if wanted > COLUMNS_MAX:
        raise RefusedError("reads too many columns", which, expected=f"at most {COLUMNS_MAX}", found=wanted)


def columns_of(node: Node) -> int:
    """How many columns of its input a node reads; 0: as many as there are."""
    if node.op.startswith("TreeEnsemble"):
        return max(_list(node, "nodes_featureids"), default=0) + 1
    if node.op.startswith("SVM"):
        return len(_list(node, "support_vectors")) // max(_vectors(node), 1)
    if node.op.startswith("Linear"):
        return len(_list(node, "coefficients")) // max(_targets(node), 1)
    if node.op == "Scaler":
        return max(len(_list(node, "offset")), len(_list(node, "scale")))
    if node.op == "Imputer":
        return max(len(_list(node, "imputed_value_floats")), len(_list(node, "imputed_value_int64s")))
    return 0


def _list(node: Node, name: str) -> tuple[Any, ...]:
    found = node.attributes.get(name, ())
    return found if isinstance(found, tuple) else ()


def _one(node: Node, name: str) -> int:
    found = node.attributes.get(name, 0)
    return found if isinstance(found, int) else 0


def _need(holds: bool, why: str, which: str) -> None:
    if not holds:
        raise RefusedError(f"has lists that do not fit each other: {why}", which)


def _check_trees(node: Node, which: str) -> None:
    odd = [name for name in node.attributes if name.endswith("_as_tensor")]
    if odd:
        raise RefusedError("keeps its trees in a form that is not checked here", which, found=odd[0])
    trees, places = _list(node, "nodes_treeids"), _list(node, "nodes_nodeids")
    modes, features = _list(node, "nodes_modes"), _list(node, "nodes_featureids")
    yes, no = _list(node, "nodes_truenodeids"), _list(node, "nodes_falsenodeids")
    count = len(places)
    columns = (trees, modes, features, yes, no, _list(node, "nodes_values"))
    _need(count > 0 and all(len(one) == count for one in columns), "one entry a node", which)
    _need(all(mode in _MODES for mode in modes), "an unknown kind of branch", which)
    _need(all(one >= 0 for one in features), "a column below the first", which)
    for name in ("nodes_hitrates", "nodes_missing_value_tracks_true"):
        _need(len(_list(node, name)) in (0, count), name, which)
    index = {key: place for place, key in enumerate(zip(trees, places, strict=True))}
    _need(len(index) == count, "two nodes of one name", which)
    _check_shape(trees, modes, (yes, no), index, which)
    _check_leaves(node, index, which)


def _check_shape(
    trees: Sequence[int],
    modes: Sequence[bytes],
    children: tuple[Sequence[int], Sequence[int]],
    index: dict[tuple[int, int], int],
    which: str,
) -> None:
    """Each node but a tree's first has exactly one parent, and all are reached from there: so there is no circle."""
    parents = [0] * len(trees)
    below: list[list[int]] = [[] for _ in trees]
    for place, (tree, mode) in enumerate(zip(trees, modes, strict=True)):
        for side in children if mode != LEAF else ():
            child = index.get((tree, side[place]))
            if child is None:
                raise RefusedError("has a branch that leads nowhere", which, found=f"tree {tree}")
            parents[child] += 1
            below[place].append(child)
    first = dict.fromkeys(trees)
    roots: dict[int, int] = {}
    for place, tree in enumerate(trees):
        if parents[place] > 1:
            raise RefusedError("has trees with a circle or a knot in them", which, found=f"tree {tree}")
        if not parents[place]:
            _need(tree not in roots, "two roots in one tree", which)
            roots[tree] = place
    seen, stack = 0, list(roots.values())
    while stack:
        seen += 1
        stack += below[stack.pop()]
    if len(roots) != len(first) or seen != len(trees):
        raise RefusedError("has trees with a circle or a knot in them", which)


def _check_leaves(node: Node, index: dict[tuple[int, int], int], which: str) -> None:
    kind = "class" if node.op.endswith("Classifier") else "target"
    names = [f"{kind}_{part}" for part in ("treeids", "nodeids", "ids", "weights")]
    columns = [_list(node, name) for name in names]
    _need(len({len(one) for one in columns}) == 1, f"{kind}_*", which)
    _need(all(key in index for key in zip(columns[0], columns[1], strict=True)), "a leaf that is no node", which)
    most = len(_list(node, "classlabels_int64s")) if kind == "class" else _one(node, "n_targets")
    _need(0 < most <= CLASSES_MAX, "the number of answers", which)
    _need(all(0 <= one < most for one in columns[2]), "an answer beyond the last", which)
    _need(len(_list(node, "base_values")) in (0, 1, most), "base_values", which)


def _vectors(node: Node) -> int:
    return _one(node, "n_supports") if node.op == "SVMRegressor" else sum(_list(node, "vectors_per_class"))


def _check_vectors(node: Node, which: str) -> None:
    vectors, numbers = _vectors(node), len(_list(node, "support_vectors"))
    coefficients, rho = len(_list(node, "coefficients")), len(_list(node, "rho"))
    _need(vectors > 0 and numbers > 0 and numbers % vectors == 0, "support_vectors", which)
    _need(len(_list(node, "kernel_params")) == 3, "kernel_params", which)
    if node.op == "SVMRegressor":
        _need(coefficients == vectors and rho == 1, "coefficients, rho", which)
        return
    classes = len(_list(node, "vectors_per_class"))
    pairs = classes * (classes - 1) // 2
    _need(all(one >= 0 for one in _list(node, "vectors_per_class")), "vectors_per_class", which)
    _need(1 < classes <= CLASSES_MAX and len(_list(node, "classlabels_ints")) == classes, "classes", which)
    _need(coefficients == vectors * (classes - 1) and rho == pairs, "coefficients, rho", which)
    for name in ("prob_a", "prob_b"):
        _need(len(_list(node, name)) in (0, pairs), name, which)
    _need(len(_list(node, "prob_a")) == len(_list(node, "prob_b")), "prob_a, prob_b", which)


def _targets(node: Node) -> int:
    if node.op == "LinearRegressor":
        return max(_one(node, "targets"), 1)
    return len(_list(node, "intercepts"))


def _check_linear(node: Node, which: str) -> None:
    targets, coefficients = _targets(node), len(_list(node, "coefficients"))
    _need(0 < targets <= CLASSES_MAX and coefficients > 0 and coefficients % targets == 0, "coefficients", which)
    _need(len(_list(node, "intercepts")) in (0, targets), "intercepts", which)
    if node.op == "LinearClassifier":
        labels = len(_list(node, "classlabels_ints"))
        _need(labels in (targets, 2 if targets == 1 else targets), "classes", which)
