"""What a run gives: the times of every peer, and the figures made of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from fastmlp.bench.workloads import Task, Workload

if TYPE_CHECKING:
    from fastmlp.bench.peers.base import Score

__all__ = ["Goal", "PeerResult", "Run", "WorkloadResult"]


@dataclass(frozen=True)
class Goal:
    """A number to reach: a ratio or a share of the peak at least, a limit at most."""

    kind: str
    value: float
    met: bool


@dataclass
class PeerResult:
    """One peer on one workload.

    Attributes
    ----------
    peer, label : str
    threads : int
    values : list of float
        Seconds, one a turn, in the order of the turns; megabytes for memory.
    score : Score or None
    slices : int
        More than 1: each time is that of such a part of an epoch, scaled up.
    skipped : str
        Why there are no values.
    """

    peer: str
    label: str
    threads: int = 1
    values: list[float] = field(default_factory=list)
    score: Score | None = None
    slices: int = 1
    skipped: str = ""

    @property
    def median(self) -> float:
        return median(self.values)


@dataclass
class WorkloadResult:
    """One workload: a section of the table.

    Attributes
    ----------
    workload : Workload
    widths : tuple of int
    n_samples : int
    generated : str
        Why the data was generated; empty: real data.
    threads : int
    peak : float or None
        GFLOP/s of so many threads.
    flop : int
        Of one measurement; 0: not counted.
    peers : list of PeerResult
    other_load : float or None
        Share of the CPUs that other processes took meanwhile.
    distances : list of float
        Seconds that a cache line took from one CPU to the other before each turn of several
        threads.
    """

    workload: Workload
    widths: tuple[int, ...]
    n_samples: int
    generated: str
    threads: int
    peak: float | None = None
    flop: int = 0
    peers: list[PeerResult] = field(default_factory=list)
    other_load: float | None = None
    distances: list[float] = field(default_factory=list)

    @property
    def ours(self) -> PeerResult | None:
        """Result of fastmlp, None where it was not measured."""
        return next((p for p in self.peers if p.peer == "fastmlp" and p.values), None)

    def ratio(self, peer: PeerResult) -> float | None:
        """The peer's median divided by fastmlp's: above 1, fastmlp is better."""
        if self.ours is None or not peer.values or peer is self.ours:
            return None
        return peer.median / self.ours.median

    def goals(self, peer: PeerResult) -> list[Goal]:
        """What is wanted of fastmlp against this peer; on its own line, of itself."""
        goals = []
        workload, ratio = self.workload, self.ratio(peer)
        if ratio is not None and peer.peer in workload.targets:
            target = workload.targets[peer.peer]
            goals.append(Goal("ratio", target, ratio >= target))
        if peer is self.ours and workload.limit is not None:
            goals.append(Goal("limit", workload.limit, peer.median <= workload.limit))
        share = self.share(peer)
        if peer is self.ours and workload.share_of_peak is not None and share is not None:
            goals.append(
                Goal("share of peak", workload.share_of_peak, share >= workload.share_of_peak)
            )
        return goals

    def gflops(self, peer: PeerResult) -> float | None:
        return self.flop / peer.median / 1e9 if self.flop and peer.values else None

    def share(self, peer: PeerResult) -> float | None:
        """Of the peak of as many threads."""
        gflops = self.gflops(peer)
        if gflops is None or not self.peak:
            return None
        return gflops / (self.peak * peer.threads / self.threads)

    def did_less(self, peer: PeerResult) -> bool:
        """Whether the peer's work is worth less than the best one's, beyond rounding and chance."""
        score = peer.score
        if score is None:
            return False
        if score.error is not None:
            return score.error > LARGEST_ERROR
        best = max(p.score.accuracy or 0.0 for p in self.peers if p.score)
        return (score.accuracy or 0.0) < best - self.workload.tolerance

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        workload = self.workload
        return {
            "name": workload.name,
            "task": str(workload.task),
            "widths": list(self.widths),
            "activation": workload.activation,
            "optimizer": None if workload.task is Task.PREDICT else workload.optimizer.describe(),
            "batch_size": workload.batch_size,
            "epochs": workload.epochs,
            "rows": workload.rows,
            "dtype": workload.dtype,
            "isa": workload.isa,
            "threads": self.threads,
            "data": workload.data,
            "generated": self.generated or None,
            "n_samples": self.n_samples,
            "flop": self.flop or None,
            "peak_gflops": self.peak,
            "other_load": self.other_load,
            "distances": self.distances,
            "peers": [self._peer_to_dict(peer) for peer in self.peers],
        }

    def _peer_to_dict(self, peer: PeerResult) -> dict[str, Any]:
        document: dict[str, Any] = {"name": peer.peer, "label": peer.label}
        if not peer.values:
            return {**document, "skipped": peer.skipped}
        unit = "megabytes" if self.workload.task is Task.MEMORY else "seconds"
        return {
            **document,
            "skipped": None,
            "threads": peer.threads,
            unit: peer.values,
            "median": peer.median,
            "min": min(peer.values),
            "max": max(peer.values),
            "slices": peer.slices,
            "ratio": self.ratio(peer),
            "goals": [asdict(goal) for goal in self.goals(peer)],
            "gflops": self.gflops(peer),
            "share_of_peak": self.share(peer),
            "accuracy": peer.score.accuracy if peer.score else None,
            "loss": peer.score.loss if peer.score else None,
            "error": peer.score.error if peer.score else None,
            "did_less": self.did_less(peer),
        }


LARGEST_ERROR = 1e-4


@dataclass
class Run:
    """Everything measured in one run, and where."""

    machine: dict[str, Any]
    versions: dict[str, str]
    repeats: int
    workloads: list[WorkloadResult] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "machine": self.machine,
            "versions": self.versions,
            "repeats": self.repeats,
            "workloads": [result.to_dict() for result in self.workloads],
        }
