"""What is done in copies of this process, which may be killed: without importing torch anew."""

import os
import signal
import traceback
from collections.abc import Callable, Mapping

import pytest
import torch
from accelerate.state import AcceleratorState

from tests.conftest import free_port

PATIENCE = 300  # seconds: where forks wait for each other on a busy machine, they take a minute


def end_of_fork(run: Callable[[], None]) -> int:
    """Run it in a fork -> how that ended, as `subprocess` tells it: 0, an error's 1, or a signal's number below zero. One
    that hangs, as on a lock that another thread held, is killed by SIGALRM."""
    return _end(_fork(run))


def ends_of_forks(
    run: Callable[[], None], count: int, environment: Mapping[str, str] | None = None
) -> list[int]:
    """Run it in so many forks at once, which meet each other as the processes of one `torchrun` do."""
    together = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    together |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "CUDA_VISIBLE_DEVICES": ""}

    def run_as(rank: str) -> None:
        os.environ.update(together | (environment or {}) | {"RANK": rank, "LOCAL_RANK": rank})
        AcceleratorState._reset_state(reset_partial_state=True)  # this process was alone
        run()

    return [_end(child) for child in [_fork(lambda rank=str(rank): run_as(rank)) for rank in range(count)]]


def _fork(run: Callable[[], None]) -> int:
    if torch.cuda.is_initialized():
        pytest.skip("CUDA cannot be used in a fork")
    child = os.fork()
    if not child:
        ended = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(PATIENCE)
            torch.set_num_threads(1)  # the threads of the process before are not there
            run()
            ended = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(ended)
    return child


def _end(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
