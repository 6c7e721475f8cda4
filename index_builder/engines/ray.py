"""The engine of a Ray cluster: Ray Data hands the parts to workers, lance-ray writes and commits the fragments.

Which cluster is Ray's own affair (RAY_ADDRESS); without one, Ray starts one on this machine that ends with the build.
Ray pickles what goes between its processes; nothing that is read from a file of the build is unpickled.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from lance_ray import LanceFragmentCommitter, LanceFragmentWriter
from ray.data import ActorPoolStrategy, DataContext, from_arrow
from ray.exceptions import RayError

from bioelx_mcp.errors import UsageError
from index_builder.engines import FRAGMENT_ROWS, Read, Worker

_ONE_PART: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow", "num_cpus": 1}


class RayEngine:
    """See `Engine`: a worker with one thread for each CPU that the cluster has when a stage begins."""

    def __init__(self) -> None:
        self._ours = False

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        if self._ours:
            ray.shutdown()

    def map(self, worker: Worker, parts: Sequence[pa.Table]) -> Iterator[pa.Table]:
        if not parts:
            return

        class Actor:
            def __init__(self) -> None:
                self._answer = worker(1)

            def __call__(self, part: pa.Table) -> pa.Table:
                return self._answer(part)

        with _failures():
            given = self._dataset(parts, ordered=False)
            actors = min(len(parts), int(ray.cluster_resources().get("CPU", 1)))
            # A part takes minutes: none waits behind another while an actor is free.
            pool = ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=1)
            answers = given.map_batches(Actor, compute=pool, **_ONE_PART)
            yield from answers.iter_batches(batch_size=1, batch_format="pyarrow")

    def write_table(
        self, path: Path, schema: pa.Schema, read: Read, parts: Sequence[pa.Table]
    ) -> None:
        def tables(part: pa.Table) -> Iterator[pa.Table]:
            return (pa.Table.from_batches([batch]) for batch in read(part))

        writer = LanceFragmentWriter(
            str(path),
            transform=tables,
            schema=schema,
            max_rows_per_file=FRAGMENT_ROWS,
            use_legacy_format=None,
        )
        committer = LanceFragmentCommitter(str(path), schema=schema, mode="create")
        with _failures():
            given = self._dataset(parts, ordered=True)
            given.map_batches(writer, **_ONE_PART).write_datasink(committer)

    def _dataset(self, parts: Sequence[pa.Table], *, ordered: bool) -> Any:
        """The parts, a block each, on the cluster."""
        if not ray.is_initialized():
            try:
                ray.init(include_dashboard=False, log_to_driver=False, logging_level="warning")
            except Exception as error:  # of many classes
                raise UsageError(
                    f"no Ray cluster at RAY_ADDRESS {os.environ.get('RAY_ADDRESS')!r} ({error}): "
                    "start it, or unset RAY_ADDRESS for one on this machine"
                ) from error
            self._ours = True
        DataContext.get_current().enable_progress_bars = False  # the build has its own
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        dataset = from_arrow(list(parts))
        dataset.context.execution_options.preserve_order = ordered
        return dataset


@contextmanager
def _failures() -> Iterator[None]:
    """One error for what a worker raised: the innermost of the tracebacks that Ray tells."""
    try:
        yield
    except RayError as error:
        told = str(error).split("\n\nThe above exception")[0].strip().splitlines()[-1]
        raise UsageError(
            f"a worker of the Ray cluster failed ({told}): each of its machines needs this version of "
            "bioelx-mcp[ray] and must see the build's files under the same paths; mend it and run again, "
            "the build resumes where it stopped, and what was in service before still is"
        ) from error
