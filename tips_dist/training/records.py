"""What a run writes into its trial folder: history, depths, candidates, checkpoints; and how it finds them again."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from tips_dist.config import Configuration
from tips_dist.files import UserError
from tips_dist.models import seed_tensors, weights_record, write_tensors
from tips_dist.runfolder import Candidate, CheckpointRecord, History, HistoryRow, WeightsRecord, layout
from tips_dist.runfolder.depths import write_depths
from tips_dist.runfolder.history import append
from tips_dist.runfolder.records import FrozenRecord, Identity
from tips_dist.runfolder.weights import read_frozen_record
from tips_dist.skeleton import JOINTS
from tips_dist.stability.risk import MIXED
from tips_dist.stability.signals import Measured
from tips_dist.stability.verdicts import crossing_at
from tips_dist.tensors import on_host
from tips_dist.training import checkpoint
from tips_dist.training.candidates import spread_out
from tips_dist.training.identity import why_other
from tips_dist.training.state import Kept, State


class Recorder:
    """Writes one trial's records; a checkpoint and the records that it refers to always belong together."""

    def __init__(self, folder: Path, configuration: Configuration, seeds: tuple[int, ...], identity: Identity) -> None:
        self.folder = folder
        self.configuration = configuration
        self.seeds = seeds
        self.identity = identity
        self.history = layout.HISTORY.beside(folder)
        self.writer = checkpoint.CheckpointWriter()
        self._previous_files: set[Path] = set()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()

    def restore(self, state: State) -> None:
        """Bring ``state`` to the latest readable checkpoint and cut the history back to it.

        Raises:
            UserError: the checkpoint was made with another configuration or data set.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        found = checkpoint.load(self.folder / "checkpoint")
        if found is None:
            self.history.unlink(missing_ok=True)
            return
        tensors, record = found
        difference = why_other(record.identity, self.identity)
        if difference is not None:
            raise UserError(f"{self.folder}: its checkpoint was made with another {difference}")
        state.restore(tensors, record)
        for seed, candidates in record.candidates.items():
            for one in candidates:
                state.candidates[seed].append(Kept(one, self._weights(seed, one)))
        self._order_history(state)
        self._previous_files = self._files(state)

    def _order_history(self, state: State) -> None:
        """Cut the history back to what each seed has reached, in the order of a run that never began again."""
        History.load(self.history).in_order(self.seeds, state.reached).save(self.history)

    def keep(self, state: State, rows: Sequence[HistoryRow], measured: Measured) -> None:
        """Record one evaluation step: candidates where they lie, depths and history on disk."""
        self.writer.check()
        for row_index, row in enumerate(rows):
            seed, risk = row.seed, row.risk
            if risk is None:
                continue
            judge = state.judges[seed]
            crossing = crossing_at(judge.crossings, state.step) is not None  # nothing is chosen there,
            if judge.settled == state.step:  # nor before it settled on one side of the mirror
                state.best.pop(seed, None)
                state.candidates[seed] = []
            if not crossing and (seed not in state.best or risk < state.best[seed][0]):
                state.best[seed] = (risk, state.step)
            signs = [int(sign) for sign in measured.signs[row_index]]
            confidence = [float(value) for value in measured.confidence[row_index]]
            mixed = row.signals.get(MIXED)
            about = Candidate(step=state.step, risk=risk, part_signs=signs, sign_confidence=confidence, mixed=mixed)
            kept = {one.about.step: one for one in state.candidates[seed]}
            chosen = spread_out([*(one.about for one in kept.values()), about], self.configuration.training)
            if about in chosen:
                kept[about.step] = Kept(about, seed_tensors(state.judged, row_index))
                state.candidates[seed] = [kept[one.step] for one in chosen]
        if self.configuration.training.record_depths:
            self._record_depths(state, layout.DEPTHS, measured.depths)
            if measured.raw is not None:
                self._record_depths(state, layout.RAW_DEPTHS, measured.raw)
        append(self.history, rows)

    def _record_depths(self, state: State, file: layout.File, depths: torch.Tensor) -> None:
        """Row e of the file (E, S, V, 17) holds evaluation step (e + 1) x evaluate_every; float16.

        Rows of seeds that have ended are meaningless; the history says which exist.
        """
        training = self.configuration.training
        shape = (training.steps // training.evaluate_every, len(self.seeds), depths.shape[1], len(JOINTS))
        places = [self.seeds.index(seed) for seed in state.active]  # the others' stay as they are
        row = state.step // training.evaluate_every - 1
        write_depths(file.beside(self.folder), shape, row, depths.numpy(), places)

    def checkpoint(self, state: State) -> None:
        """Write new candidates, then the checkpoint that names them, then drop what neither checkpoint names.

        The state is copied now and written in the background; :meth:`finish` waits for it.

        Raises:
            StorageError: the checkpoint before could not be written.
        """
        tensors, record = state.dump()
        whole = CheckpointRecord(**dict(record), identity=self.identity)
        named = {
            self.candidate_path(seed, one.about.step): (
                None if one.tensors is None else on_host(one.tensors),
                self._weights_record(state, seed, one.about),
            )
            for seed, kept in state.candidates.items()
            for one in kept
        }
        for kept in state.candidates.values():
            for one in kept:
                one.tensors = None  # in the file from now on: many candidates take no more memory than few
        current, previous = self._files(state), self._previous_files
        self._previous_files = current

        def write() -> None:
            for path, (weights, description) in named.items():
                if weights is not None and not path.exists():
                    write_tensors(path, weights, description)
            checkpoint.save(self.folder / "checkpoint", tensors, whole)
            for file in (layout.CANDIDATE, layout.FROZEN):
                for path in file.beside(self.folder).parent.glob("*.safetensors"):
                    if path not in current | previous:
                        path.unlink(missing_ok=True)

        self.writer.submit(write)

    def finish(self, state: State) -> None:
        """Wait until the last checkpoint is on disk.

        Raises:
            StorageError: it could not be written; the one before is whole.
        """
        self.writer.finish()
        if state.round:
            self._order_history(state)

    def freeze(self, states: Mapping[int, tuple[dict[str, torch.Tensor], FrozenRecord]]) -> None:
        """Keep the states of seeds that were stopped; on disk before a checkpoint that has them no more.

        Raises:
            StorageError: what was written before could not be.
        """
        files = [(self._frozen_path(seed), *state) for seed, state in states.items()]

        def write() -> None:
            for path, tensors, record in files:
                write_tensors(path, tensors, record)

        if files:
            self.writer.submit(write)

    def frozen(self, seed: int) -> tuple[dict[str, torch.Tensor], FrozenRecord] | None:
        """The kept state of a seed that was stopped; None where it is gone, damaged, or of another configuration."""
        self.writer.finish()
        path = self._frozen_path(seed)
        try:
            record = read_frozen_record(path)
            if record.seed != seed or why_other(record.identity, self.identity) is not None:
                return None
            return safetensors.torch.load_file(path), record
        except (OSError, SafetensorError, UserError):
            return None

    def _frozen_path(self, seed: int) -> Path:
        return layout.FROZEN.beside(self.folder).with_name(layout.frozen_name(seed))

    def candidate_path(self, seed: int, step: int) -> Path:
        """Where a candidate's weights are."""
        return self.folder / "candidates" / layout.candidate_name(seed, step)

    def _files(self, state: State) -> set[Path]:
        """The files that a checkpoint of this state names: candidates and frozen seeds."""
        candidates = {
            self.candidate_path(seed, one.about.step) for seed, kept in state.candidates.items() for one in kept
        }
        return candidates | {self._frozen_path(seed) for seed in state.frozen}

    def _weights(self, seed: int, one: Candidate) -> dict[str, torch.Tensor] | None:
        """The weights of a candidate kept before; None where its file is gone or damaged: to go on needs none of it."""
        path = self.candidate_path(seed, one.step)
        try:
            return safetensors.torch.load_file(path)
        except (OSError, SafetensorError):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)  # a damaged one; selection then says that it is missing
            return None

    def _weights_record(self, state: State, seed: int, one: Candidate) -> WeightsRecord:
        return weights_record(
            state.lifter,
            **one.model_dump(),
            seed=seed,
            scale=self.identity.scale,
            data_digest=self.identity.data_digest,
            configuration=self.identity.configuration_digest,
            average=self.configuration.training.average if state.averaged is not None else None,
        )
