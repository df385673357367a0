"""The training pipeline of one pump type: snapshot -> clean -> features -> fit -> (shape) -> evaluate -> export, in that order.

The step `shape` is there for model types that learn from all pumps together; it scores every pump anew.

Steps that cost time work pump by pump and are remembered in the run cache under keys that name everything they
depend on; a run that was cut goes on where it stopped. Registering the result is one transaction of the store and
therefore the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import GateRefusedError
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_fleet.core.registry import Lineage
from pumpdeck_trainer.ahead import Ahead, Fleetwide
from pumpdeck_trainer.assembling import Made, assemble
from pumpdeck_trainer.cache import NoCache, RunCache, run_key
from pumpdeck_trainer.champion import Champion
from pumpdeck_trainer.foreign_scorer import ForeignModel
from pumpdeck_trainer.jobs import Early, Limits, judge_beside, rows_of
from pumpdeck_trainer.judging import Judged, judged_calm
from pumpdeck_trainer.learning import Learned, PumpRows, learn, own_limit
from pumpdeck_trainer.limits import FittedLimit, pool_limit
from pumpdeck_trainer.run_log import EXCLUDED, LEFT_OUT, PROVISIONAL, RunObserver, Unobserved
from pumpdeck_trainer.scorer import MaxZScorer
from pumpdeck_trainer.search import (
    PointResult,
    SearchOutcome,
    SearchRows,
    choose,
    judge_point,
    search_text,
    searched_pumps,
    with_point,
)
from pumpdeck_trainer.shape import Shape, fit_shape, rescore, shape_ahead
from pumpdeck_trainer.source import Snapshot, TrainingRequest, TrainingSource, take_snapshot
from pumpdeck_trainer.spec import PipelineSpec
from pumpdeck_trainer.trained import TrainedModel

JUDGED_MAX_BYTES = 1_000_000
KEPT_PUMPS = 64
Ranges = dict[str, tuple[float, float]]


def _no_progress(_step: str, _done: int, _total: int) -> None:
    return None


@dataclass(frozen=True)
class RunContext:
    """What surrounds a run: digests for its lineage (`lineage.py` computes the first two), cache, progress, workers.

    champion: judged on the same rows beside what is trained; it changes nothing of the result but `Judged.contest`.
    foreign: the imported graph to be judged instead of one to be learned, where `spec.foreign` names one.
    """

    code_digest: str
    lock_digest: str
    git_commit: str = ""
    git_dirty: bool = False
    cache: RunCache = field(default_factory=NoCache)
    on_progress: Progress = _no_progress
    fleetwide: Fleetwide | None = None
    champion: Champion | None = None
    observer: RunObserver = field(default_factory=Unobserved)
    foreign: ForeignModel | None = None


def train(spec: PipelineSpec, request: TrainingRequest, source: TrainingSource, context: RunContext) -> TrainedModel:
    """Train one pump type. The same rows, spec, code and packages give the same bytes, cached or not.

    Gates are in the result; call `require_gates` before anything is registered or packaged. Progress may raise to
    cancel.

    Raises:
        GateRefusedError: no pump has enough rows.
    """
    run = _Run(spec, request, source, context)
    try:
        return run.train()
    finally:
        context.cache.flush()


class _Run:
    def __init__(
        self, spec: PipelineSpec, request: TrainingRequest, source: TrainingSource, context: RunContext
    ) -> None:
        self._spec = spec
        self._spec_digest = spec.digest
        self._learning_digest = spec.learning_digest
        self._request = request
        self._source = source
        self._context = context
        self._rows: dict[str, PumpRows] = {}
        self._shape: Shape
        self._asked: Ahead
        self._ahead: dict[str, Learned | str] = {}
        self._judged_ahead: dict[str, Judged] = {}
        self._quiet_ahead: dict[str, Judged] = {}
        self._champion = context.champion
        self._found: SearchOutcome | None = None

    def train(self) -> TrainedModel:
        self._say("snapshot", 0, 1)
        snapshot = take_snapshot(self._source, self._request)
        self._say("snapshot", 1, 1)
        if self._spec.search.points:
            self._search(snapshot)
        if self._champion and self._champion.lineage == self._lineage(snapshot):
            # The same run again: what it would be compared with is itself.
            self._champion = None
        context = self._context
        self._asked = Ahead(context.fleetwide, self._request, self._champion, context.on_progress)
        learned, left_out = self._fit(snapshot)
        self._shape = fit_shape(learned, self._spec, context.foreign)
        if self._spec.model_type != MaxZScorer.model_type:
            learned = self._rescore(snapshot, learned)
        limits, early = self._limits(learned)
        judged = self._evaluate(snapshot, learned, limits, early)
        self._say("export", 0, 1)
        made = Made(
            spec=self._spec,
            request=self._request,
            snapshot=snapshot,
            lineage=self._lineage(snapshot),
            shape=self._shape,
            learned=learned,
            limits=limits,
            judged=judged,
            left_out=left_out,
            search=self._found,
        )
        trained = assemble(made, self._context.observer)
        self._say("export", 1, 1)
        return trained

    def _say(self, step: str, done: int, total: int) -> None:
        self._context.on_progress(step, done, total)

    def _search(self, snapshot: Snapshot) -> None:
        """Judge every point of the grid and go on with the best; a point that was judged before comes from the cache."""
        spec, points = self._spec, self._spec.search.points
        pumps = searched_pumps(self._request.pumps, spec.search.pumps)
        asked = replace(spec.search, points=())
        inputs = canonical.digest(canonical.encode([[snapshot.pumps[pump] for pump in pumps], asked]))
        held: list[SearchRows] = []
        results: list[PointResult] = []
        for place, point in enumerate(points):
            self._say("search", place, len(points))
            self._learning_digest = with_point(spec, point).learning_digest
            key = self._key("search", inputs)
            cached = self._context.cache.get(key)
            if cached is not None:
                results.append(canonical.decode(PointResult, cached, "cached search", max_bytes=JUDGED_MAX_BYTES))
                continue
            held = held or [SearchRows(pump, self._rows_of(pump).rows, self._source.exclusions(pump)) for pump in pumps]
            results.append(judge_point(spec, point, held))
            self._context.cache.put(key, canonical.encode(results[-1]))
            self._context.cache.checkpoint()
        self._say("search", len(points), len(points))
        self._found = choose(results, pumps)
        self._context.observer.note(f"search: {search_text(self._found)}")
        self._rows.clear()
        self._spec = with_point(spec, points[self._found.chosen])
        self._spec_digest, self._learning_digest = self._spec.digest, self._spec.learning_digest

    def _fit(self, snapshot: Snapshot) -> tuple[dict[str, Learned], dict[str, str]]:
        learned: dict[str, Learned] = {}
        left_out: dict[str, str] = {}
        self._say("fit", 0, len(self._request.pumps))
        self._learn_ahead(snapshot)
        for place, pump in enumerate(self._request.pumps):
            self._say("fit", place, len(self._request.pumps))
            found = self._learn(pump, snapshot.pumps[pump])
            if isinstance(found, str):
                left_out[pump] = found
                self._context.observer.trouble("fit", pump, LEFT_OUT, found)
                continue
            learned[pump] = found
            share = 1 - found.used / max(found.rows, 1)
            if share > self._spec.gates.excluded_share_warn:
                self._context.observer.trouble("fit", pump, EXCLUDED, f"{share:.0%} of {found.rows}")
        self._say("fit", len(self._request.pumps), len(self._request.pumps))
        if not learned:
            why = next(iter(left_out.values()), "no pump was named")
            raise GateRefusedError("has no pump to learn from", self._spec.model, found=why, hint="collect more rows")
        return learned, left_out

    def _learn(self, pump: str, inputs: str) -> Learned | str:
        """What was learned of a pump, or why nothing was."""
        ahead = self._ahead.pop(pump, None)
        if ahead is not None:
            return ahead
        key = self._key("fit", inputs)
        cached = self._context.cache.get(key)
        if cached is not None:
            return Learned.from_bytes(cached)
        try:
            found = learn(self._rows_of(pump), self._spec)
        except GateRefusedError as error:
            return error.sentence()
        self._context.cache.put(key, found.to_bytes())
        return found

    def _learn_ahead(self, snapshot: Snapshot) -> None:
        """In a run of many pumps: what is not in the cache is learned in other processes first."""
        cache, shape = self._context.cache, shape_ahead(self._spec)
        keys = {pump: self._key("fit", snapshot.pumps[pump]) for pump in self._request.pumps}
        missing = [pump for pump, key in keys.items() if cache.get(key) is None]
        for pump, early in self._asked.learn(missing, self._spec, shape):
            self._ahead[pump] = early.learned
            if isinstance(early.learned, Learned):
                cache.put(keys[pump], early.learned.to_bytes())
            self._keep_judged(snapshot, pump, early, shape)

    def _rescore_ahead(self, snapshot: Snapshot, learned: dict[str, Learned], keys: dict[str, str]) -> None:
        """The same for scoring by the shape."""
        cache, shape = self._context.cache, self._shape
        missing = {pump: one for pump, one in learned.items() if cache.get(keys[pump]) is None}
        for pump, early in self._asked.rescore(missing, shape):
            if isinstance(early.learned, Learned):
                one = learned[pump]
                self._ahead[pump] = anew = replace(early.learned, sample=one.sample, edges=one.edges)
                cache.put(keys[pump], anew.to_bytes())
            self._keep_judged(snapshot, pump, early, shape)

    def _keep_judged(self, snapshot: Snapshot, pump: str, early: Early, shape: Shape | None) -> None:
        """Under the key that names its limits: should the pump get others, nobody finds it."""
        if early.quiet:
            self._quiet_ahead[pump] = early.quiet
        if shape and early.limits and early.judged:
            key = self._judged_key(snapshot.pumps[pump], early.limits, shape)
            self._judged_ahead[key] = early.judged
            self._context.cache.put(key, canonical.encode(early.judged))

    def _rescore(self, snapshot: Snapshot, learned: dict[str, Learned]) -> dict[str, Learned]:
        self._say("shape", 0, len(learned))
        found: dict[str, Learned] = {}
        cache, shape = self._context.cache, self._shape.digest
        told = {pump: canonical.digest(f"{snapshot.pumps[pump]} {shape}".encode()) for pump in learned}
        keys = {pump: self._key("shape", inputs) for pump, inputs in told.items()}
        self._say("shape", 0, len(learned))
        self._rescore_ahead(snapshot, learned, keys)
        for place, (pump, one) in enumerate(learned.items()):
            self._say("shape", place, len(learned))
            ahead = self._ahead.pop(pump, None)
            cached = None if ahead else cache.get(keys[pump])
            if isinstance(ahead, Learned):
                found[pump] = ahead
            elif cached:
                found[pump] = Learned.from_bytes(cached)
            else:
                found[pump] = rescore(self._rows_of(pump), one, self._shape)
                cache.put(keys[pump], found[pump].to_bytes())
        self._say("shape", len(learned), len(learned))
        return found

    def _rows_of(self, pump: str) -> PumpRows:
        if pump in self._rows:
            return self._rows[pump]
        rows = rows_of(self._source, pump, self._spec, (self._request.start_ms, self._request.end_ms))
        # A large run reads a pump's rows again for its replay instead of holding those of all pumps in memory.
        if len(self._rows) < KEPT_PUMPS:
            self._rows[pump] = rows
        return rows

    def _limits(self, learned: dict[str, Learned]) -> tuple[dict[str, FittedLimit], dict[str, FittedLimit | None]]:
        """Each pump's limit, and the one of its early fit where there is ground for one."""
        spec, rule = self._spec, self._spec.blocks
        pooled = pool_limit([one.fit.maxima for one in learned.values()], rule, spec.budget)
        early = [one.early.maxima for one in learned.values() if one.early]
        early_pooled = pool_limit(early, rule, spec.budget)
        shape = self._shape
        limits = {pump: own_limit(one.fit.maxima, pooled, spec, shape.scorer) for pump, one in learned.items()}
        for pump, limit in limits.items():
            if limit.provisional:
                self._context.observer.trouble("limits", pump, PROVISIONAL)
        held: dict[str, FittedLimit | None] = dict.fromkeys(learned)
        for pump, one in learned.items():
            if one.early and (early_pooled or one.early.maxima.has_own):
                held[pump] = own_limit(one.early.maxima, early_pooled, spec, shape.early)
        return limits, held

    def _evaluate(
        self,
        snapshot: Snapshot,
        learned: dict[str, Learned],
        limits: dict[str, FittedLimit],
        early: dict[str, FittedLimit | None],
    ) -> dict[str, Judged]:
        self._say("evaluate", 0, len(learned))
        judged: dict[str, Judged] = {}
        cache, champion, ahead = self._context.cache, self._champion, self._judged_ahead
        self._say("evaluate", 0, len(learned))
        pairs = {pump: (limits[pump], early[pump]) for pump in learned}
        quiet = {pump: found for pump, one in learned.items() if (found := self._quiet(pump, one, pairs[pump]))}
        # What follows from the fit alone is not kept; what the champion did is.
        asked = [pump for pump in learned if champion or pump not in quiet]
        keys = {pump: self._judged_key(snapshot.pumps[pump], pairs[pump], self._shape) for pump in asked}
        if champion:
            for pump, found in quiet.items():
                cache.put(keys[pump], canonical.encode(found))
        missing = [pump for pump, key in keys.items() if pump not in quiet and key not in ahead and cache.get(key) is None]
        for pump, replayed in self._asked.judge({pump: (learned[pump], pairs[pump]) for pump in missing}, self._shape):
            ahead[keys[pump]] = replayed
            cache.put(keys[pump], canonical.encode(replayed))
        for place, (pump, one) in enumerate(learned.items()):
            self._say("evaluate", place, len(learned))
            key = keys.get(pump, "")
            found = quiet.get(pump) or ahead.pop(key, None)
            cached = None if found else cache.get(key)
            if found is not None:
                judged[pump] = found
            elif cached is not None:
                judged[pump] = canonical.decode(Judged, cached, "cached replay", max_bytes=JUDGED_MAX_BYTES)
            else:
                faults = [item for item in self._source.exclusions(pump) if item.is_fault]
                judged[pump] = judge_beside(self._rows_of(pump), (pump, one, pairs[pump]), faults, self._shape, champion)
                cache.put(key, canonical.encode(judged[pump]))
            self._rows.pop(pump, None)
        self._say("evaluate", len(learned), len(learned))
        return judged

    def _quiet(self, pump: str, learned: Learned, limits: Limits) -> Judged | None:
        """The verdict on a pump that is known to stay quiet under its limits: nobody needs to look at its rows."""
        found = judged_calm(learned, limits)
        if found is None or self._champion is None:
            return found
        held = self._quiet_ahead.get(pump)
        return held if held and replace(held, contest=None) == found else None

    def _judged_key(self, inputs: str, limits: Limits, shape: Shape) -> str:
        held = self._champion.content_digest if self._champion else ""
        return self._key("evaluate", canonical.digest(canonical.encode([inputs, shape.digest, held, *limits])))

    def _key(self, step: str, inputs: str) -> str:
        context, spec = self._context, self._spec
        return run_key(
            step, inputs=inputs, spec=self._learning_digest, code=context.code_digest, lock=context.lock_digest, seed=spec.seed
        )

    def _lineage(self, snapshot: Snapshot) -> Lineage:
        context = self._context
        return Lineage(
            snapshot_digest=snapshot.digest,
            pipeline_digest=self._spec_digest,
            code_digest=context.code_digest,
            lock_digest=context.lock_digest,
            seed=self._spec.seed,
            git_commit=context.git_commit,
            git_dirty=context.git_dirty,
        )
