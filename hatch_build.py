"""Build hook: the page of handgrad lab is bundled into the package, if Node.js is there to do it."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILD = "cd web && npm ci && npm run build"


class PageHook(BuildHookInterface):  # type: ignore[type-arg]
    """Bundle web/ into src/handgrad/lab/static before files are collected, unless the page is already there."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the page. An editable installation serves the page from the checkout, and does not need it here."""
        root = Path(self.root)
        if version == "editable" or (root / "src/handgrad/lab/static/index.html").is_file():
            return
        npm = shutil.which("npm")
        if npm is None:
            self.app.display_warning(f"The page of handgrad lab is not included: npm was not found. Run: {BUILD}")
            return
        for command in (["ci"], ["run", "build"]):
            done = subprocess.run([npm, *command], cwd=root / "web", capture_output=True, text=True, check=False)
            if done.returncode:
                last = (done.stderr.strip() or "no message").splitlines()[-1]
                self.app.display_warning(f"The page of handgrad lab is not included: npm {command[0]} failed: {last}")
                return
