"""Set-up: what `make` does in a clone, without a git identity, without git, and after an interruption.

Python, pip, ruff and Debian's package tools are stand-ins that record their arguments; make, git and dvc are real.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
IDENTITY = {
    "GIT_CONFIG_COUNT": "2",
    "GIT_CONFIG_KEY_0": "user.name",
    "GIT_CONFIG_VALUE_0": "A Reader",
    "GIT_CONFIG_KEY_1": "user.email",
    "GIT_CONFIG_VALUE_1": "reader@example.org",
}

STAND_IN = """\
#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in
-c*) exit "${TOO_OLD:-0}" ;;
--version) echo "Python 3.11.0" ;;
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "${0%/*}/dvc" "${0%/*}/ruff" "$3/bin/" ;;
"-m pip "*) exit "${PIP_ENDS_WITH:-0}" ;;
"-m stages.report.plots_template "*) echo page > "$3" ;;
"-m pytest"*) echo "skips fail: ${FAIL_ON_SKIP:-0}"; echo "1 failed, 2 passed in 0.12s"; exit 1 ;;
esac
"""
# Debian's packages: those named in $INSTALLED are there.
DPKG_QUERY = """\
#!/bin/sh
for package; do :; done
case " $INSTALLED " in *" $package "*) printf installed ;; *) exit 1 ;; esac
"""
APT_GET = """\
#!/bin/sh
echo "apt-get $*" >> "$CALLS"
exit "${APT_ENDS_WITH:-0}"
"""


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


class Project:
    """A folder with the project's set-up files in it."""

    def __init__(self, folder: Path, tools: Path) -> None:
        self.folder, self.tools = folder, tools
        self.calls_file = tools / "calls"
        (folder / "stages/report").mkdir(parents=True)
        (folder / "stages/report/plots_template.py").touch()
        (folder / ".ci").mkdir()
        for name in ("Makefile", "requirements.lock", ".gitignore", ".ci/run"):
            shutil.copy(ROOT / name, folder / name)
        (folder / ".dvc").mkdir()
        for name in ("config", ".gitignore"):
            shutil.copy(ROOT / ".dvc" / name, folder / ".dvc" / name)
        script(tools / "python3.11", STAND_IN)
        script(tools / "dvc", f'#!/bin/sh\nexec "{sys.executable}" -m dvc "$@"\n')
        script(tools / "ruff", "#!/bin/sh\n")
        script(tools / "dpkg-query", DPKG_QUERY)
        script(tools / "apt-get", APT_GET)
        script(tools / "sudo", '#!/bin/sh\nexec "$@"\n')

    def run(self, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run ``command`` with no git settings but ``settings``, and no variables of a make or git that runs pytest."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "MAKE", "MFLAGS", "DVC_"))
        }
        environment |= {
            "PATH": f"{self.tools}:{environment['PATH']}",
            "CALLS": str(self.calls_file),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CEILING_DIRECTORIES": str(self.tools.parent.parent),
            "HOME": str(self.tools),
        }
        return subprocess.run(
            command, cwd=self.folder, env=environment | settings, capture_output=True, text=True, timeout=120
        )

    def make(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return self.run("make", *arguments, **settings)

    def setup(self, **settings: str) -> str:
        """Run `make setup`, which must succeed, and return what it prints."""
        done = self.make("setup", **settings)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def calls(self, start: str = "") -> list[str]:
        """The recorded calls of stand-ins that begin with ``start``."""
        lines = self.calls_file.read_text(encoding="utf-8").splitlines() if self.calls_file.exists() else []
        return [line for line in lines if line.startswith(start)]

    def installs(self) -> int:
        return len(self.calls("-m pip install"))

    def goes_without_git(self) -> bool:
        done = self.run(str(self.tools / "dvc"), "config", "core.no_scm")
        return done.stdout.strip() == "true"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """In a path with a space, below no git repository."""
    return Project(tmp_path / "a folder", tmp_path / "tools")


def test_make_alone_lists_the_targets(project: Project) -> None:
    listed = re.findall(r"^make ([\w-]+) ", project.make().stdout, re.MULTILINE)
    assert {"setup", "repro", "full", "preset", "test", "wandb-sync", "lint", "lock", "clean"} <= set(listed)
    assert project.installs() == 0


def test_the_environment_is_made_once(project: Project) -> None:
    project.setup()
    assert project.installs() == 1
    project.setup()
    (project.folder / "requirements.lock").touch()
    project.setup()
    assert project.installs() == 1


def test_full_writes_its_preset_and_goes_on_as_repro_does(project: Project) -> None:
    project.make("full")
    expected = ["-m stages.common.config.preset presets/full.args", "-m stages.common.config"]
    assert project.calls("-m stages.common.config") == expected


def test_repro_checks_the_parameters_before_dvc_runs_a_stage(project: Project) -> None:
    script(project.tools / "dvc", '#!/bin/sh\necho "dvc $*" >> "$CALLS"\n')
    assert project.make("repro").returncode == 0
    calls = project.calls()
    assert calls.index("-m stages.common.config") < calls.index("dvc repro")


def test_a_changed_lock_file_makes_it_anew(project: Project) -> None:
    project.setup()
    (project.folder / ".venv/stale").touch()
    with (project.folder / "requirements.lock").open("a", encoding="utf-8") as lock:
        lock.write("extra==1\n")
    project.setup()
    assert project.installs() == 2
    assert not (project.folder / ".venv/stale").exists()


def test_an_interrupted_set_up_does_not_look_complete(project: Project) -> None:
    done = project.make("setup", PIP_ENDS_WITH="1")
    assert done.returncode == 2
    (project.folder / ".venv/half").touch()
    project.setup()
    assert project.installs() == 2
    assert not (project.folder / ".venv/half").exists()


def test_a_moved_folder_gets_its_own_environment(project: Project) -> None:
    project.setup()
    project.folder = project.folder.rename(project.folder.with_name("moved"))
    project.setup()
    assert project.installs() == 2


def test_an_environment_that_is_a_link_is_left_where_it_is(project: Project, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/precious").touch()
    (project.folder / ".venv").symlink_to(tmp_path / "elsewhere")
    project.setup()
    assert (tmp_path / "elsewhere/precious").exists()


def test_without_a_new_enough_python_one_sentence(project: Project) -> None:
    done = project.make("setup", "PYTHON=python3.11 no-such-python", TOO_OLD="1")
    assert done.returncode == 2
    assert "Python 3.11 or newer" in done.stderr
    assert not (project.folder / ".venv").exists()


def test_two_jobs_do_the_set_up_once(project: Project) -> None:
    done = project.make("-j2", "setup", "lint")
    assert done.returncode == 0, done.stderr
    assert project.installs() == 1
    assert project.goes_without_git()
    assert "html_template" in (project.folder / ".dvc/config.local").read_text(encoding="utf-8")


def test_unpacked_without_git(project: Project) -> None:
    assert "need git" in project.setup()
    assert project.goes_without_git()
    project.run("git", "init", "-q")
    assert project.setup(**IDENTITY) == ""
    assert not project.goes_without_git()


def test_inside_somebody_elses_repository(project: Project) -> None:
    project.run("git", "init", "-q", "..")
    assert "need git" in project.setup()
    assert project.goes_without_git()
    project.run("git", "add", "Makefile")
    assert project.setup(**IDENTITY) == ""
    assert not project.goes_without_git()


def test_a_clone_where_git_is_not_installed(project: Project) -> None:
    project.run("git", "init", "-q")
    script(project.tools / "git", "#!/bin/sh\nexit 127\n")
    assert "need git" in project.setup()
    assert project.goes_without_git()


def test_a_clone_without_identity(project: Project) -> None:
    project.run("git", "init", "-q")
    assert "git config user.email" in project.setup()
    assert not project.goes_without_git()


def test_ci_prints_pytests_closing_line_last_and_fails_with_it(project: Project) -> None:
    done = project.run(".ci/run", INSTALLED="chromium fonts-noto-cjk")
    assert done.returncode != 0
    assert "skips fail: 1" in done.stdout.splitlines()
    assert done.stdout.splitlines()[-1] == "1 failed, 2 passed in 0.12s"
    assert project.calls("apt-get") == []


def test_ci_installs_what_the_tests_need(project: Project) -> None:
    project.run(".ci/run", INSTALLED="chromium")
    install = "apt-get install --quiet --yes --no-install-recommends fonts-noto-cjk"
    assert project.calls("apt-get") == ["apt-get update --quiet", install]


def test_ci_runs_the_tests_where_packages_cannot_be_installed(project: Project) -> None:
    done = project.run(".ci/run", APT_ENDS_WITH="100")
    assert "warning: could not install chromium fonts-noto-cjk" in done.stderr
    assert done.stdout.splitlines()[-1] == "1 failed, 2 passed in 0.12s"


def test_the_lock_file_holds_plain_versions_that_the_project_asks_for() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!]+", pin) for pin in pins)
    locked = {canonicalize_name(name): version for name, version in (pin.split("==") for pin in pins)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for line in [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]:
        requirement = Requirement(line)
        assert locked[canonicalize_name(requirement.name)] in requirement.specifier


def test_git_ignores_what_dvc_keeps_and_tracks_what_it_does_not(project: Project) -> None:
    project.run("git", "init", "-q")
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"].values()
    kept, tracked = [], []
    for stage in (stage.get("do", stage) for stage in stages):
        for out in [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]:
            path, settings = next(iter(out.items())) if isinstance(out, dict) else (out, {})
            (tracked if settings.get("cache") is False else kept).append(path.replace("${key}", "x"))
    assert kept and tracked
    for path in kept:
        assert project.run("git", "check-ignore", "-q", path).returncode == 0, path
    for path in ["reports/time/vision.json", "reports/times.html"]:  # what stages write that nobody keeps
        assert project.run("git", "check-ignore", "-q", path).returncode == 0, path
    for path in [*tracked, "data/eval/scenes.yaml", ".dvc/config", ".dvc/plots/loss.json", "dvc.lock"]:
        assert project.run("git", "check-ignore", "-q", path).returncode == 1, path
