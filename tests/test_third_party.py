"""A stranger's package, installed by pip into a fresh environment and used through every command that meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from plugin_venv import PluginVenv

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("third-party")]  # one environment for all

PLUGINS = Path(__file__).parent / "plugins"
ARCHITECTURE = """\
version: 1
name: small-leaky
extends: leaky/leaky-hybrid
dims: {hidden_size: 32, vocab_size: 300}
components:
  leaky: {channels: 40}
"""
BROKEN = """\
version: 1
name: broken
dims: {hidden_size: 32, vocab_size: 300}
components:
  x: {type: broken/layer}
  y: {type: leaky/leaky_integrator, chanels: 3}
  z: {type: leaky/squared_relu_mlp, intermediate_size: "64"}
  w: {type: laeky/leaky_integrator}
blocks:
  b: [x, y, z, w]
stack: b
"""


#: Says where the plugin was installed, without importing it.
WHERE = "import importlib.util; print(importlib.util.find_spec('axon_leaky').submodule_search_locations[0])"


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> PluginVenv:
    made = PluginVenv.create(tmp_path_factory.mktemp("third-party"))
    for name in ("axon-leaky", "axon-broken"):
        made.install(PLUGINS / name)
    (made.folder / "small.yaml").write_text(ARCHITECTURE)
    (made.folder / "broken.yaml").write_text(BROKEN)
    return made


def test_plugins_are_installed_in_the_environment_alone(env: PluginVenv) -> None:
    done = env.python("-c", "import axon_leaky; print(axon_leaky.__file__)")
    assert done.stdout.startswith(str(env.folder))


def test_registry(env: PluginVenv) -> None:
    code = """
import json, sys
from axon_compose.registry import Registry
registry = Registry.installed()
spec = registry.component("leaky/leaky_integrator")
loaded = [name for name in ("mlx", "axon_broken", "jsonschema") if name in sys.modules]
statuses = [[s.namespace, s.distribution, s.version, s.status, s.cause] for s in registry.statuses()]
print(json.dumps([registry.full_name(spec), registry.distribution("leaky"), loaded, statuses]))
"""
    done = env.python("-c", code)
    assert done.returncode == 0, done.stderr
    name, distribution, loaded, statuses = json.loads(done.stdout)
    assert (name, distribution) == ("leaky/leaky_integrator", "axon-leaky 0.3.1")
    # One component of the plugin has a raw JSON Schema, which is checked when the plugin is loaded.
    assert loaded == ["jsonschema"]
    assert ["leaky", "axon-leaky", "0.3.1", "ok", ""] in statuses
    cause = "ModuleNotFoundError: No module named 'package_that_is_not_there', at axon_broken/__init__.py:3"
    assert ["broken", "axon-broken", "6.6.6", "failed", cause] in statuses


def test_plugins_command(env: PluginVenv) -> None:
    done = env.cli("plugins")
    assert done.returncode == 0, done.stderr
    for text in ("axon-leaky", "0.3.1", "leaky_integrator", "axon-broken", "6.6.6", "package_that_is_not_there"):
        assert text in done.stdout
    assert json.loads(env.cli("plugins", "--json").stdout)


def test_disabled_plugin(env: PluginVenv) -> None:
    done = env.cli("validate", "small.yaml", AXON_COMPOSE_DISABLE_PLUGINS="leaky")
    assert done.returncode == 1
    assert "AX205" in done.stdout + done.stderr


def test_debug_shows_the_traceback(env: PluginVenv) -> None:
    assert "Traceback" not in env.cli("plugins").stderr
    assert "Traceback" in env.cli("plugins", AXON_COMPOSE_PLUGIN_DEBUG="1").stderr


def test_schema_knows_the_types(env: PluginVenv) -> None:
    done = env.cli("schema")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    for text in ("leaky/leaky_integrator", "leaky/squared_relu_mlp", "Time constant of the slowest channel"):
        assert text in done.stdout


def test_validate_and_show(env: PluginVenv) -> None:
    done = env.cli("validate", "small.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    done = env.cli("show", "small.yaml")
    assert done.returncode == 0, done.stderr
    assert "leaky" in done.stdout
    done = env.cli("show", "small.yaml", "--stage", "plan")
    assert "leaky/leaky_integrator" in done.stdout


def test_faults_are_told_as_for_built_in_layers(env: PluginVenv) -> None:
    done = env.cli("validate", "broken.yaml")
    assert done.returncode == 1
    told = done.stdout + done.stderr
    assert "Traceback" not in told
    for code, place in (("AX203", "5:"), ("AX101", "6:"), ("AX102", "7:"), ("AX201", "8:")):
        assert f"error[{code}]" in told
        assert f"broken.yaml:{place}" in told
    for text in ("axon-broken 6.6.6", "did you mean `channels`?", "write 64 without quotes", "did you mean `leaky`?"):
        assert text in told


def test_build_and_check(env: PluginVenv) -> None:
    done = env.cli("build", "small.yaml", "--out", "built")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "axon-leaky 0.3.1" in (env.folder / "built" / "build.json").read_text()
    done = env.cli("check", "small.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    done = env.cli("check", "--layer", "leaky/leaky_integrator", "--cases", "2", "--truth", "chunks,left-padded")
    assert done.stdout.endswith("leaky/leaky_integrator: 2 checks passed in 2 of 2 cases\n"), done.stdout + done.stderr


def test_every_layer_passes_the_kit(env: PluginVenv) -> None:
    done = env.python("-c", "from axon_compose.testing import check_plugin; check_plugin('leaky')")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("mx.where(mask[..., None], inflow, 0.0)", "inflow"),
        ("mx.where(real[..., None], previous, last[:, None])", "previous"),
        ("last_real(x, last, mask)", "x[:, -1]"),
        ("cache.advance(x.shape[1])", "pass"),
    ],
)
def test_the_kit_finds_what_is_wrong(env: PluginVenv, right: str, wrong: str) -> None:
    """The kit is worth something to a stranger only if it fails on a layer that forgets about padding."""
    file = Path(env.python("-c", WHERE).stdout.strip()) / "layers.py"
    text = file.read_text()
    assert text.count(right) == 1
    try:
        file.write_text(text.replace(right, wrong))
        code = "from axon_compose.testing import check_layer; check_layer('leaky/leaky_integrator', {'channels': 24})"
        done = env.python("-B", "-c", code)
    finally:
        file.write_text(text)
    assert done.returncode == 1
    assert "AssertionError" in done.stderr
