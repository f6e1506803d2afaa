"""What the commands promise: they write nothing, run nothing that a file names, and refuse what is too large."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_hostile_source import IN_LITTLE_MEMORY

from axon_compose import ArchitectureError, load
from tests.helpers import described

#: Runs a command and prints, after its output, whatever it did to the world besides reading.
WATCHED = """
import os, sys
did = []
MODES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
WATCHED = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system", "os.mkdir", "os.rename",
           "os.remove", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.truncate", "os.utime", "shutil.",
           "tempfile.", "ctypes.dlopen")
def watch(event, args):
    if event == "open":
        path, mode, flags = args
        if flags & MODES and path != os.devnull and not isinstance(path, int):  # a descriptor was open before
            did.append(f"open {path} {mode}")
    elif event.startswith(WATCHED) and event not in ("socket.gethostname",):
        did.append(f"{event} {args}")
from axon_compose.cli import main
sys.addaudithook(watch)
try:
    code = main(sys.argv[1:])
except SystemExit as error:
    code = error.code
loaded = sorted({"evil", "mlx", "mlx_lm", "numpy"} & set(sys.modules))
sys.stderr.write("\\n" + repr((code, did, loaded)))
"""
EVIL = """
version: 1
dims: {hidden_size: 32, vocab_size: 64}
components:
  a: {type: os.system, command: touch owned}
  b: {type: "evil:Owned"}
  c: {type: evil/Owned}
  d: {type: evil/owned, module: evil}
  e: {type: evil.owned}
  f: {type: mlp, intermediate_size: 48, module: "evil:Owned", __class__: evil}
  g: {type: mlp, intermediate_size: "=__import__('evil')"}
  h: {type: mlp, intermediate_size: "=hidden_size.__class__"}
  i: !!python/object/apply:os.system ["touch owned"]
blocks: {a: [a, b, c, d, e, f, g, h]}
stack: a
"""
GOOD = """
version: 1
dims: {hidden_size: 32, vocab_size: 64}
components: {mlp: {type: mlp, intermediate_size: 48}}
blocks: {a: [mlp]}
stack: a*2
"""
COMMANDS = (
    ["validate", "good.yaml"],
    ["validate", "evil.yaml"],
    ["validate", "--format", "json", "good.yaml", "evil.yaml"],
    ["show", "good.yaml"],
    ["show", "good.yaml", "--stage", "plan"],
    ["show", "good.yaml", "--stage", "document"],
    ["show", "evil.yaml"],
    ["show", "bit-axon"],
    ["schema"],
    ["plugins"],
    ["list"],
    ["describe", "attention"],
    ["explain", "AX101"],
)


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file below a folder with its times and content."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {str(file): (file.stat().st_mtime_ns, file.stat().st_mode, file.read_bytes()) for file in files}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_nothing_is_written_run_or_fetched(command: list[str], tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("open('owned', 'w').write('owned')\nclass Owned: pass\n")
    (tmp_path / "evil.yaml").write_text(EVIL)
    (tmp_path / "good.yaml").write_text(GOOD)
    before = snapshot(tmp_path)
    env = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    begin = [sys.executable, "-B", "-c", WATCHED, *command]
    done = subprocess.run(begin, capture_output=True, text=True, check=False, cwd=tmp_path, env=env)
    code, did, loaded = eval(done.stderr.splitlines()[-1])  # what the text above printed
    assert (did, loaded) == ([], [])
    assert code == (1 if "evil.yaml" in command else 0), done.stderr
    assert snapshot(tmp_path) == before


def test_the_watch_sees_what_it_should(tmp_path: Path) -> None:
    """A command that does write is seen to."""
    begin = [sys.executable, "-B", "-c", WATCHED, "schema", "-o", "schema.json"]
    done = subprocess.run(begin, capture_output=True, text=True, check=True, cwd=tmp_path)
    code, did, _ = eval(done.stderr.splitlines()[-1])
    assert code == 0
    assert any("schema.json" in event for event in did)


# Models that are too large.

LARGE = {
    "10^15 parameters": ("dims: {hidden_size: 1048576, vocab_size: 1073741824}", "48", "a", "embedding"),
    "an expert layer of 10^15": ("dims: {hidden_size: 2000000000, vocab_size: 8}", "500000", "a*4", "layers.0"),
    "4096 layers of 10^12": ("dims: {hidden_size: 1000000, vocab_size: 8}", "1000000", "a*4096", "layers."),
}


@pytest.mark.parametrize("name", LARGE)
def test_too_large_to_build(name: str, tmp_path: Path) -> None:
    """It is valid and can be shown, in little memory; a build is refused and names what weighs most."""
    dims, width, stack, largest = LARGE[name]
    file = tmp_path / "large.yaml"
    part = f"components: {{mlp: {{type: mlp, intermediate_size: {width}}}}}\nblocks: {{a: [mlp]}}\nstack: {stack}\n"
    file.write_text(f"version: 1\n{dims}\n{part}")
    begin = [sys.executable, "-c", MAIN]
    for command in ("validate", "show"):
        limited = [*IN_LITTLE_MEMORY, *begin, command, str(file)]
        done = subprocess.run(limited, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run([*begin, "build", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "AX401" in done.stderr
    assert f"`{largest}" in done.stderr
    assert done.stderr.count("\n") < 10


MAIN = "import sys; from axon_compose.cli import main; sys.exit(main(sys.argv[1:]))"


# Bases from elsewhere.

ESCAPES = {
    "../outside.yaml": "AX113",
    "../inside/../outside.yaml": "AX113",
    "sub/../../outside.yaml": "AX113",
    "./././../outside.yaml": "AX113",
    "/etc/passwd.yaml": "AX113",
    "//host/share.yaml": "AX113",
    "~/outside.yaml": "AX113",
    "~root/outside.yaml": "AX113",
    "file:///tmp/outside.yaml": "AX113",
    "https://example.org/base.yaml": "AX113",
    "link.yaml": "AX113",
    "folder-link/outside.yaml": "AX113",
    "a\0b.yaml": "AX113",
    "zero.yaml": "AX113",
    "fifo.yaml": "AX111",
    "directory.yaml": "AX111",
    "missing.yaml": "AX111",
    "loop.yaml": "AX111",
    "x" * 300 + ".yaml": "AX111",
    "x/" * 3000 + "x.yaml": "AX111",
    ".yaml": "AX111",
    "good.yaml/": "AX201",
    "good.YAML": "AX209",
    "../outside": "AX201",
    "core/../../outside": "AX209",
    ".": "AX209",
    "huge.yaml": "AX005",
    "deep.yaml": "AX008",
    "tagged.yaml": "AX011",
    "list.yaml": "AX101",
    "empty.yaml": "AX006",
    "myself.yaml": "AX112",
    "chain0.yaml": "AX112",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a sound base and every kind of bad one, and a file beside it that must not be read."""
    inside = tmp_path / "inside"
    (inside / "sub").mkdir(parents=True)
    (inside / "directory.yaml").mkdir()
    (tmp_path / "outside.yaml").write_text("name: stolen\n" + GOOD)
    texts = {
        "good.yaml": GOOD,
        "list.yaml": "[1, 2]",
        "empty.yaml": "",
        "deep.yaml": "a: " + "[" * 200,
        "tagged.yaml": "a: !!python/name:os.system",
        "myself.yaml": "extends: myself.yaml",
        **{f"chain{n}.yaml": f"extends: chain{n + 1}.yaml" for n in range(20)},
    }
    for name, text in texts.items():
        (inside / name).write_text(text)
    with (inside / "huge.yaml").open("wb") as stream:
        stream.truncate(1 << 40)  # no blocks are written
    (inside / "link.yaml").symlink_to("../outside.yaml")
    (inside / "folder-link").symlink_to("..")
    (inside / "zero.yaml").symlink_to("/dev/zero")
    (inside / "loop.yaml").symlink_to("loop.yaml")
    os.mkfifo(inside / "fifo.yaml")
    return inside


@pytest.mark.parametrize("reference", ESCAPES, ids=lambda reference: ascii(reference[:30]))
def test_a_base_that_must_not_be_read(reference: str, folder: Path) -> None:
    file = folder / "file.yaml"
    file.write_text(f"extends: {json.dumps(reference)}\n" + GOOD)
    with pytest.raises(ArchitectureError) as caught:
        load(file)
    assert ESCAPES[reference] in {d.code for d in caught.value.diagnostics}
    assert "stolen" not in str(caught.value)


def test_a_base_beside_the_file(folder: Path) -> None:
    (folder / "inner.yaml").symlink_to("good.yaml")
    for reference in ("good.yaml", "sub/../good.yaml", "inner.yaml", "./good.yaml"):
        (folder / "file.yaml").write_text(f"extends: {reference}\nname: mine")
        assert load(folder / "file.yaml").name == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_base_that_may_not_be_read(folder: Path) -> None:
    (folder / "good.yaml").chmod(0)
    (folder / "file.yaml").write_text("extends: good.yaml")
    with pytest.raises(ArchitectureError, match=r"cannot read `good\.yaml`"):
        load(folder / "file.yaml")


def test_extends_of_plain_data_stays_in_the_current_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert load({"extends": "good.yaml", "name": "mine"}).name == "mine"
    with pytest.raises(ArchitectureError, match="AX113"):
        load(described(extends="../outside.yaml"))
