"""`axon-native` against the recurrences in float64 and the forms out of operations of MLX."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import distributions, version

import mlx.core as mx
import numpy as np
import pytest
import test_scan
from kernel_cases import (
    NATIVE,
    SEQUENCES,
    SHARED,
    arrays,
    draw,
    reference,
    relative,
    run,
    transformations_are_those_of_the_pure_form,
)

from axon_compose.cli import main
from axon_compose.machine.native import NEEDED
from axon_core.cpu import reference_implementations
from axon_core.kernels import _native

# One worker builds it, and runs all of them.
pytestmark = [pytest.mark.xdist_group("native"), pytest.mark.usefixtures("native")]


def check(kind, values, limit=2e-6):
    found = run(kind, values)
    with reference_implementations():
        pure = run(kind, values)
    for one, other, truth in zip(found, pure, reference(kind, values), strict=True):
        assert relative(one, truth) < limit
        assert relative(one, np.asarray(other)) < 2 * limit
    if found[0].size > 100:
        assert not np.array_equal(found[0], pure[0]), "the pure form ran"


@pytest.mark.parametrize(("channels", "states"), [(1, 1), (63, 4), (64, 16), (65, 3), (200, 16), (8, 100)])
@pytest.mark.parametrize(("batch", "length"), [(1, 2), (3, 40), (1, 300)])
def test_the_selective_scan(batch, length, channels, states):
    check("scan", test_scan.draw(batch, length, channels, states))


@pytest.mark.parametrize("key_dim", [1, 5, 8, 64])
@pytest.mark.parametrize(
    ("batch", "length", "key_heads", "heads", "value_dim"),
    [(2, 2, 2, 4, 31), (3, 17, 1, 3, 32), (1, 90, 2, 2, 33), (1, 30, 1, 2, 100)],
)
@pytest.mark.parametrize("kind", ["delta", "channels"])
def test_the_gated_delta_rule(kind, batch, length, key_heads, heads, key_dim, value_dim):
    sizes = {"batch": batch, "length": length, "key_heads": key_heads, "heads": heads}
    check(kind, draw(kind, **sizes, key_dim=key_dim, value_dim=value_dim))


@pytest.mark.parametrize("key_dim", [1, 9, 64])
@pytest.mark.parametrize(("batch", "length", "heads", "value_dim"), [(2, 2, 3, 31), (3, 17, 2, 32), (1, 60, 1, 65)])
def test_the_recurrence_of_rwkv7(batch, length, heads, key_dim, value_dim):
    check("wkv7", draw("wkv7", batch=batch, length=length, heads=heads, key_dim=key_dim, value_dim=value_dim))


@pytest.mark.parametrize(("batch", "length"), [(1, 2), (3, 40), (1, 300)])
@pytest.mark.parametrize("seed", range(3))
def test_the_scan_of_mamba2(batch, length, seed):
    check("ssd", draw("ssd", batch=batch, length=length, seed=seed))


@pytest.mark.parametrize("kind", ["scan", "ssd"])
@pytest.mark.parametrize(
    ("low", "high"), [(1e-4, 1e-4), (1e-4, 1e-3), (1e-3, 1e-1), (1e-4, 100), (100, 100)], ids=lambda v: f"{v:g}"
)
def test_extreme_steps_over_a_long_sequence(kind, low, high):
    values = draw(kind, batch=1, length=8192, low=low, high=high)
    # A state that hardly changes is rounded the same way at every token, half of its last place at most: steps of 1e-4
    # add up thousands of them. Decays that are rounded to float32 first, as in a loop over tokens, lose 4e-4 there.
    limit = 1e-4 if high == 1e-4 else 1e-5 if high == 1e-3 else 2e-6
    for found, truth in zip(run(kind, values), reference(kind, values), strict=True):
        assert relative(found, truth) < limit


@pytest.mark.parametrize("kind", ["delta", "channels"])
@pytest.mark.parametrize(("low", "high"), [(-10, -8), (1, 9)])
def test_the_gated_delta_rule_with_any_decay(kind, low, high):
    check(kind, draw(kind, length=200, low=low, high=high), limit=5e-6)


@pytest.mark.parametrize("kind", NATIVE)
@pytest.mark.parametrize("holds", SHARED)
def test_what_holds_of_every_form(kind, holds):
    holds(kind)


@pytest.mark.parametrize("kind", NATIVE)
def test_what_is_not_a_number_stays_so(kind):
    values = draw(kind, length=20)
    for name in SEQUENCES[kind]:
        spoilt = values | {
            name: np.where(np.arange(values[name].size).reshape(values[name].shape), values[name], np.nan)
        }
        assert np.isnan(run(kind, spoilt)[0]).any(), name


@pytest.mark.parametrize("kind", NATIVE)
@pytest.mark.parametrize("empty", ["batch", "length"])
def test_nothing_gives_nothing(kind, empty):
    y, state = run(kind, draw(kind, **{empty: 0}))
    assert y.size == 0
    assert np.isfinite(np.asarray(state)).all()


@pytest.mark.parametrize("kind", NATIVE)
def test_many_threads_change_nothing(kind):
    """Long enough for threads of its own, beside other operations."""
    large = {"channels": 300, "states": 16} if kind == "scan" else {}
    values = draw(kind, batch=4, length=700, **large)
    first = run(kind, values)
    for _ in range(5):
        again = run(kind, values)
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("kind", NATIVE)
def test_transformations_equal_those_of_the_pure_form(kind):
    transformations_are_those_of_the_pure_form(kind)


@pytest.mark.parametrize("kind", NATIVE)
def test_memory_is_that_of_inputs_and_outputs(kind):
    values = arrays(draw(kind, batch=1, length=4096))
    mx.eval(values)
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    y, state = run(kind, values)
    mx.eval(y, state)
    copies = sum(a.nbytes for a in values.values()) + 3 * y.nbytes
    assert mx.get_peak_memory() - before < 2 * copies


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("selective_scan", [(4, 8), (1, 4, 8), (1, 5, 8), (1, 5, 8), (1, 5, 4), (1, 5, 3)]),
        ("selective_scan", [(4, 8), (1, 8, 4), (1, 5, 8), (1, 5, 8), (1, 5, 4), (1, 5, 4)]),
        ("selective_scan", [(8,), (1, 4, 8), (1, 5, 8), (1, 5, 8), (1, 5, 4), (1, 5, 4)]),
        ("ssd_scan", [(1, 4, 3, 8), (1, 5, 4), (1, 5, 4, 3), (1, 5, 3, 8), (1, 5, 3, 8)]),
        ("ssd_scan", [(1, 4, 3, 8), (1, 5, 2), (1, 5, 4, 3), (1, 5, 2, 8), (1, 5, 2, 8)]),
        ("gated_delta_rule", [(1, 4, 3, 8), *[(1, 5, 2, 8)] * 2, (1, 5, 4, 3), (1, 5, 4, 7), (1, 5, 4)]),
        ("gated_delta_rule", [(1, 4, 3, 8), *[(1, 5, 2, 8)] * 2, (1, 5, 4), (1, 5, 4), (1, 5, 4)]),
        ("wkv7", [(1, 4, 3, 8), *[(1, 5, 2, 8)] * 3, (1, 5, 4, 3), *[(1, 5, 2, 8)] * 2]),
    ],
)
def test_shapes_that_do_not_fit_are_refused(module, name, sizes):
    with pytest.raises(ValueError, match="should"):
        getattr(module, name)(*map(mx.zeros, sizes))


def test_it_is_left_alone_where_it_should_be(module, monkeypatch):
    assert _native.native() is module
    with reference_implementations():
        assert _native.native() is None
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    assert _native.native() is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer",
    [
        "axon_ssm",
        "mamba",
        "mamba2",
        "gated_delta_net",
        "kimi_delta_attention",
        "rwkv7_time_mix",
        "lightning_attention",
        "rg_lru",
    ],
)
def test_all_truths_hold_of_layers_with_it(layer, capsys):
    assert main(["check", "--layer", layer, "--cases", "2"]) == 0, capsys.readouterr()


def test_mlx_lm_runs_with_it(built, tmp_path):
    """The unmodified command, in a process that finds it among what is installed."""
    folder = tmp_path / "model"
    assert main(["build", "hybrid-demo", "--out", str(folder)]) == 0
    environment = os.environ | {"PYTHONPATH": str(built), "AXON_NATIVE": "1"}
    written = []
    for switch in ("1", "0"):
        command = [sys.executable, "-m", "mlx_lm", "generate", "--model", str(folder), "--trust-remote-code"]
        command += ["--prompt", "Describe, trust, run.", "--max-tokens", "12", "--temp", "0"]
        done = subprocess.run(command, env=environment | {"AXON_NATIVE": switch}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        written.append(done.stdout.split("==========")[1])
    assert written[0] == written[1]
    finder = "from axon_core.kernels._native import native; print(native().__name__)"
    done = subprocess.run([sys.executable, "-c", finder], env=environment, capture_output=True, text=True)
    assert done.stdout == "axon_native\n"


def test_another_version_of_mlx_is_left_alone(built, tmp_path):
    other = tmp_path / "mlx-99.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: mlx\nVersion: 99.0\n")
    code = (
        "from axon_core.kernels._native import native; print(native())\n"
        "from axon_compose.machine.native import native; print(native())\n"
        "from axon_compose.proof.doctor import examine\n"
        "print(*(finding.value for finding in examine() if finding.name == 'kernels'))"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{built}", "AXON_NATIVE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    used, shown, reported = done.stdout.splitlines()
    assert (used, shown) == ("None", "Native(version='0.2.1', fits=False)"), done.stderr
    assert reported.startswith("axon-native was built for mlx 0.")
    assert reported.endswith("not 99.0: build it again")


def test_another_version_of_itself_is_left_alone(built, tmp_path):
    """As after an update of axon-compose alone, whose calls it may not have."""
    other = tmp_path / "axon_native-0.1.0.dist-info"
    other.mkdir()
    mlx = version("mlx").partition("+")[0]
    (other / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: axon-native\nVersion: 0.1.0\nRequires-Dist: mlx=={mlx}\n"
    )
    code = (
        "from axon_core.kernels._native import native; print(native())\n"
        "from axon_compose.proof.doctor import examine\n"
        "print(*(finding.value for finding in examine() if finding.name == 'kernels'))"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{built}", "AXON_NATIVE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    used, reported = done.stdout.splitlines()
    assert used == "None", done.stderr
    assert reported == f"those of MLX; axon-native 0.1.0 is not used, {NEEDED} is needed"


def test_the_wheel_needs_the_mlx_that_it_is_built_for(built):
    (found,) = distributions(path=[str(built)])
    assert found.requires == [f"mlx=={version('mlx')}"]


def test_show_says_what_runs(built):
    command = [sys.executable, "-m", "axon_compose", "show", "hybrid-demo", "--json"]
    paths = os.pathsep.join([str(built), *sys.path])
    found = []
    for switch in ("1", "0"):
        environment = os.environ | {"PYTHONPATH": paths, "AXON_NATIVE": switch}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        found.append(json.loads(done.stdout)["result"]["axon_native"])
    assert found == ["0.2.1", None]


@pytest.mark.parametrize(("switch", "words"), [("0", "AXON_NATIVE is 0"), ("1", "in C++, axon-native ")])
def test_doctor_reports_whether_it_is_used(built, switch, words):
    code = "from axon_compose.proof.doctor import examine; print(*(finding.value for finding in examine()))"
    environment = os.environ | {"PYTHONPATH": str(built), "AXON_NATIVE": switch}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert words in done.stdout, done.stderr
