"""Writes `gpubp_accel.pth` beside the installed package; everything else is in pyproject.toml.

Python reads the file at its start: GPUBP_ACCEL=1 then switches on gpubp.accel, and without that
variable nothing is imported.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HOOK = "gpubp_accel.pth"
LINE = (
    'import os; os.environ.get("GPUBP_ACCEL", "0") in ("", "0") or __import__("gpubp._autostart")\n'
)


class BuildWithHook(build_py):
    """Also writes the hook, but for editable installs, which cannot have one."""

    def run(self) -> None:
        """Build, then write."""
        super().run()
        if not self.editable_mode:
            path = Path(self.build_lib) / HOOK
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(LINE)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """The files that are installed."""
        found: list[str] = super().get_outputs(include_bytecode)
        return found if self.editable_mode else [*found, str(Path(self.build_lib) / HOOK)]


setup(cmdclass={"build_py": BuildWithHook})
