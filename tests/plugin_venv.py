"""A fresh virtual environment that sees the packages of this one, so that nothing is downloaded."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

_CLI = "import sys; from axon_compose.cli import main; sys.exit(main())"


@dataclass(frozen=True)
class PluginVenv:
    """A virtual environment; commands run in `folder`, outside of the checkout.

    Attributes:
        folder: Where the environment is, and where commands run.
    """

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> PluginVenv:
        """Make the environment. Its own packages come first, then those of the running one."""
        made = cls(folder)
        venv.create(folder, with_pip=False, symlinks=True)
        site = Path(made._ask("import sysconfig; print(sysconfig.get_path('purelib'))"))
        paths = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
        # A line that starts with `import` is run: `addsitedir` also follows the .pth files of editable installs.
        (site / "running.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in paths))
        return made

    def install(self, project: Path) -> None:
        """Build and install a project as pip does, without network and without touching its folder."""
        flags = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
        done = self.python("-m", "pip", "install", *flags, str(project))
        assert done.returncode == 0, done.stdout + done.stderr

    def python(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the environment's Python."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "AXON_COMPOSE"))}
        scripts = "Scripts" if sys.platform == "win32" else "bin"
        return subprocess.run(
            [str(self.folder / scripts / "python"), *arguments],
            cwd=self.folder,
            env=clean | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def cli(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `axon-compose` with these arguments."""
        return self.python("-c", _CLI, *arguments, **environment)

    def _ask(self, code: str) -> str:
        done = self.python("-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()
