"""A worker process on this machine, started as a command."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from distributed.deploy.spec import ProcessInterface
from distributed.deploy.subprocess import SubprocessWorker

from apexflow.engine.run.parent import PARENT
from apexflow.system import end_group


class LocalWorker(SubprocessWorker):  # type: ignore[misc]
    """A Dask worker with its nanny, which restarts it when it dies.

    It is a command, not a fork or spawn of the caller's script, so that a script needs no
    ``if __name__ == "__main__"`` and a notebook works like any other caller. It is in a
    session of its own, so that Ctrl-C on a terminal reaches the run alone, which then ends it;
    and it ends itself when the run is gone.
    """

    def __init__(
        self,
        scheduler: str,
        *,
        nthreads: int,
        memory_limit: int,
        resources: Mapping[str, float] = MappingProxyType({}),
        environment: Mapping[str, str] = MappingProxyType({}),
        name: Any = None,
    ) -> None:
        options = {
            "nthreads": nthreads,
            "host": "127.0.0.1",
            "dashboard": False,
            "resources": dict(resources),
            "memory_limit": memory_limit,
            "preload_nanny": ["apexflow.engine.run.parent"],
            # By which the run finds the process of a worker that it has to end.
            "name": name,
        }
        self._environment = {PARENT: str(os.getpid()), **environment}
        super().__init__(scheduler, "distributed.Nanny", name, options)

    @property
    def lost(self) -> bool:
        """Whether the nanny has died, so that nobody will restart the worker."""
        return self.process is not None and self.process.returncode is not None

    def end(self) -> None:
        """Kill the nanny and its worker, from outside: they may be stopped and hear nothing."""
        if self.process is not None and self.process.returncode is None:
            end_group(self.process.pid)

    async def _start(self) -> None:
        spec = json.dumps({"cls": self.worker_class, "opts": self.worker_kwargs})
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "dask", "spec", self.scheduler, "--spec", spec),
            env={**os.environ, **self._environment},
            start_new_session=True,
        )

    async def close(self) -> None:
        """End the nanny with all that it has started.

        As one group: Dask's own way kills the processes that it has just listed one by one,
        and fails when one of them ends meanwhile.
        """
        self.end()
        if self.process is not None and self.process.returncode is None:
            await self.process.wait()
        await ProcessInterface.close(self)
