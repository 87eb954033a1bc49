"""What is read from /proc and from tools, on texts of machines that are not here."""

import subprocess

import pytest

from qanet.benchmarks import machine

X86 = """processor\t: 0
model name\t: Some CPU @ 2.0GHz
physical id\t: 0
core id\t: 0
flags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16 amx_int8 sse2

processor\t: 1
model name\t: Some CPU @ 2.0GHz
physical id\t: 0
core id\t: 0
flags\t\t: fpu avx2
"""
ARM = """processor\t: 0
Features\t: fp asimd asimdhp asimddp i8mm

Model\t\t: Some Board Rev 1
"""


def test_x86_flags_and_hyperthreads():
    cpu = machine.parse_cpuinfo(X86)
    assert (cpu["model"], cpu["logical_cpus"], cpu["physical_cores"]) == ("Some CPU @ 2.0GHz", 2, 1)
    assert cpu["isa"] == ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"]


def test_arm_features_and_board():
    cpu = machine.parse_cpuinfo(ARM)
    assert (cpu["model"], cpu["logical_cpus"], cpu["physical_cores"]) == ("Some Board Rev 1", 1, None)
    assert cpu["isa"] == ["asimddp", "asimdhp", "i8mm"]


def test_nothing_readable_is_none_not_an_error():
    assert machine.parse_cpuinfo("")["isa"] == []
    assert machine.parse_meminfo("") == {"total_gib": None, "available_gib": None}


def test_memory_in_gib():
    assert machine.parse_meminfo("MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n") == {
        "total_gib": 8.0, "available_gib": 4.0,
    }  # fmt: skip


@pytest.mark.parametrize(("load", "busy"), [(0.1, False), (0.59, False), (1.0, True)])
def test_busy_by_share_of_the_cpus(load, busy):
    warning = machine.busy_warning({"load_average": [load, 0, 0], "cpu": {"usable_cpus": 2}})
    assert (warning is not None) is busy
    assert warning is None or f"load average {load} on 2 CPUs" in warning


def test_no_load_average_no_warning():
    assert machine.busy_warning({"load_average": None, "cpu": {"usable_cpus": 2}}) is None


def test_gpus_from_nvidia_smi(monkeypatch):
    answer = "Some GPU, 580.1, 81559 MiB, 345 MHz, 1980 MHz, [N/A], 9.0\n"
    monkeypatch.setattr(machine, "_command", lambda arguments: answer)
    (gpu,) = machine.gpus()
    assert gpu["name"] == "Some GPU" and gpu["power.limit"] == "[N/A]" and gpu["compute_cap"] == "9.0"
    monkeypatch.setattr(machine, "_command", lambda arguments: None)
    assert machine.gpus() == []


def test_git_hash_only_of_a_checkout(tmp_path):
    assert machine.git_hash(tmp_path) is None
    try:
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("git is not installed")
    assert machine.git_hash(tmp_path) is None  # no commit yet
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    (tmp_path / "file").write_text("1")
    subprocess.run(["git", "-C", str(tmp_path), "add", "file"], check=True)
    subprocess.run(["git", "-C", str(tmp_path), *identity, "commit", "-q", "-m", "one"], check=True)
    clean = machine.git_hash(tmp_path)
    assert clean is not None and len(clean) == 12
    (tmp_path / "file").write_text("2")
    assert machine.git_hash(tmp_path) == clean + "+changes"


def test_describe_names_no_host(monkeypatch):
    import platform

    about = machine.describe()
    assert about["versions"]["numpy"] and about["cpu"]["usable_cpus"] >= 1
    node = platform.node()
    assert not node or len(node) < 4 or node not in str(about)
