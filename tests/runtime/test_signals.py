"""The stack that signals run on, once OpenVINO is in the process."""

import subprocess
import sys

# OpenVINO's CPU plug-in lends the thread a stack for signals as long as a Core lives. One that is lent and never taken
# back cannot dangle: it has to stay the same from parser to parser, and after them.
_SCRIPT = """
import ctypes, gc, sys, qanet

class Stack(ctypes.Structure):
    _fields_ = [("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("bytes", ctypes.c_size_t)]

def pointer():
    now = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(now)) == 0
    return now.pointer

seen = []
for _ in range(2):
    parser = qanet.load(sys.argv[1], device="cpu", threads=1)
    seen.append(pointer())
    other = qanet.load(sys.argv[1], device="cpu", threads=1)
    seen.append(pointer())
    del parser
    gc.collect()
    seen.append(pointer())
    del other
    gc.collect()
    seen.append(pointer())
print(len(set(seen)))
"""


def test_parsers_come_and_go_on_one_stack(shared_tiny_bundle):
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(shared_tiny_bundle)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
