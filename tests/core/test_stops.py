"""SIGTERM and SIGHUP end a command as Ctrl-C does, each with its own exit code; handlers of other programs stay."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from qanet.commandline import run_command
from qanet.signals import check_stop, remembered_stop, stoppable

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
FORMS = {
    "raised in the command": """
    print("ready", flush=True)
    time.sleep(20)""",
    "raised in text that Python evaluates, as by namedtuple": """
    exec("print('ready', flush=True); time.sleep(20)")""",
    "kept, as by parse and benchmark": """
    with remembered_stop() as came:
        print("ready", flush=True)
        while not came.is_set():
            time.sleep(0.01)
        print("kept", flush=True)
        return 130""",
}
PROGRAM = """
import signal, sys, time
from qanet.commandline import run_command
from qanet.signals import remembered_stop
def command():
    {body}
sys.exit(run_command(command))
"""


@pytest.mark.parametrize("ignores_ctrl_c", [False, True], ids=["", "in the background of a script"])
@pytest.mark.parametrize("body", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_a_command_ends_with_the_signals_code(tmp_path, number, body, ignores_ctrl_c):
    if ignores_ctrl_c and number == signal.SIGINT:
        return
    ignore = (lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignores_ctrl_c else None
    (tmp_path / "program.py").write_text(PROGRAM.format(body=body))
    command = [sys.executable, "-m", "program"]  # as `python -m qanet`
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=ignore
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == CODES[number]
    assert out.endswith("kept\n") if "kept" in body else err == "interrupted\n"


def test_nohup_is_honoured_and_handlers_are_put_back():
    seen = []
    before = {number: signal.getsignal(number) for number in CODES}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: seen.append("theirs"))
    theirs = signal.getsignal(signal.SIGTERM)
    try:
        with stoppable(), remembered_stop() as came:
            for number in (signal.SIGHUP, signal.SIGTERM):
                os.kill(os.getpid(), number)
            assert seen == ["theirs"] and not came.is_set()
        assert signal.getsignal(signal.SIGTERM) is theirs and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize(("patient", "raises"), [(False, True), (True, False)])
def test_the_second_stop(patient, raises):
    got = []
    try:
        with stoppable(), remembered_stop(patient) as came:
            os.kill(os.getpid(), signal.SIGTERM)
            assert came.is_set()
            with pytest.raises(KeyboardInterrupt):
                check_stop()
            os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        got.append("raised")
    assert bool(got) == raises and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_command_in_another_thread_sets_no_handler():
    codes = []
    thread = threading.Thread(target=lambda: codes.append(run_command(lambda: 0)))
    thread.start()
    thread.join()
    assert codes == [0] and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
