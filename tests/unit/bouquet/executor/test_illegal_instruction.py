"""The end of a process whose library was built for another CPU."""

import os
import signal

from bouquet.executor.linux import describe_returncode


def test_an_illegal_instruction_names_avx() -> None:
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGILL, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGILL)
    returncode = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert describe_returncode(returncode) == (
        "was killed by signal 4 (SIGILL): this CPU lacks an instruction of a library; TensorFlow needs AVX"
    )
