"""What is done in a copy of this process, which may be killed: without importing torch anew."""

import os
import signal
import traceback
from collections.abc import Callable

import pytest
import torch

PATIENCE = 120  # seconds


def end_of_fork(run: Callable[[], None]) -> int:
    """Run it in a fork -> how that ended, as `subprocess` tells it: 0, an error's 1, or a signal's number below zero. One
    that hangs, as on a lock that another thread held, is killed by SIGALRM."""
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
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
