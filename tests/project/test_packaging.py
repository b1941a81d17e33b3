"""The package as users get it: its names, its metadata, its files, and the cost of importing it."""

from __future__ import annotations

import configparser
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import llmbridge

ROOT = Path(__file__).resolve().parents[2]
LEFT_OVERS = shutil.ignore_patterns(
    ".git", ".venv", "venv", ".tox", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis"
)

PUBLIC = """
    AllFailed AsyncGeneratorProvider Audio AuthError BadRequest Cancelled ChatStream Choice Citation Client
    ClockExpired CodeLinkAva Completion ConfigError ConnectFailed ContentFiltered ContextLengthExceeded Conversation
    Document Embeddings Finish Image InvalidOutput InvalidRequest LLMBridgeError Limits Logprobs Media Message
    MissingKey NotFound Opaque Other OtherChoice Overloaded Partial PermissionDenied ProtocolError Provider
    QuotaExceeded RateLimited RateLimits RawEvent Reasoning Refusal Retry RetryAttempt Secret ServerError ServerTool
    ServiceError StatusError StreamError StreamTruncated Text Timeout Tool ToolCall ToolCallDelta ToolResult
    TransportError TurnsExceeded UnknownProvider UnsupportedParameter Usage Vitalentum WorkerLost __version__ aembed
    amodels chat compatible conversation embed models register set_thread_limit tool
""".split()

# Written so that this file does not find itself.
FOREIGN = {
    "the host name of a registry": r"pypi[.]org|pythonhosted[.]org|npmjs[.](?:org|com)|anaconda[.]org",
    "a path of somebody's machine": r"(?<![\w.:/}])/(?:home|root|Users|work|opt|mnt)/\w",
}


def _setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


# -- names ------------------------------------------------------------------------------------------------------------


def test_the_public_names_are_these() -> None:
    """Adding or removing a name is a decision: change this list and the changelog with it."""
    assert sorted(llmbridge.__all__) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_there(name: str) -> None:
    """Every public name can be imported from the package, and dir() shows it."""
    assert getattr(llmbridge, name) is not None
    assert name in dir(llmbridge)


def test_another_name_is_an_attribute_error() -> None:
    """A lazy package raises the usual error."""
    with pytest.raises(AttributeError, match="nonsense"):
        llmbridge.nonsense  # noqa: B018 - the access is the test


def test_importing_it_imports_no_dependency() -> None:
    """`import llmbridge` loads no dependency, no event loop and no TLS."""
    code = "import sys; before = set(sys.modules); import llmbridge; print(*sorted(set(sys.modules) - before))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
    )
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert "llmbridge" in loaded
    assert not loaded & {"requests", "urllib3", "sseclient", "anyio", "asyncio", "ssl", "http", "email", "logging"}


# -- metadata ---------------------------------------------------------------------------------------------------------


def test_the_version_is_the_same_everywhere() -> None:
    """The installed metadata, the package and the changelog agree."""
    assert importlib.metadata.version("llmbridge") == llmbridge.__version__
    assert f"\n## [{llmbridge.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_entry_points_lead_somewhere() -> None:
    """The command and the pytest plugin can be imported."""
    points = {(point.group, point.name): point for point in importlib.metadata.distribution("llmbridge").entry_points}
    assert callable(points["console_scripts", "llmbridge"].load())
    assert points["pytest11", "llmbridge"].load().llm_server


def test_the_lowest_versions_are_tested() -> None:
    """tox's `lowest` installs exactly the minimal versions of setup.cfg, and one urllib3."""
    floors = dict(re.split(r"\s*>=\s*", line) for line in _lines(_setup()["options"]["install_requires"]))
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    pins = dict(re.split(r"\s*==\s*", line) for line in _lines(tox["testenv:lowest"]["deps"]))
    assert pins.pop("urllib3")
    assert pins == floors


def test_the_pythons_are_tested() -> None:
    """Every Python of the classifiers has its tox environment, and the lowest is python_requires."""
    setup = _setup()
    pythons = re.findall(r"Python :: (3\.\d+)", setup["metadata"]["classifiers"])
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    environments = tox["tox"]["env_list"].replace(" ", "").split(",")
    assert [f"py{python.replace('.', '')}" for python in pythons] == [e for e in environments if e.startswith("py")]
    assert setup["options"]["python_requires"] == f">={pythons[0]}"


def test_the_hooks_use_the_tools_of_the_lint_extra() -> None:
    """The pre-commit hooks have the same versions as `tox -e lint`."""
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    tools = re.findall(r'additional_dependencies: \["(.+)"\]', hooks)
    assert set(tools) == set(_lines(_setup()["options.extras_require"]["lint"]))


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str]]:
    """The names in a wheel and in a source archive, built from a copy of the checkout."""
    pytest.importorskip("setuptools", minversion="70.1", reason="builds without isolation, hence without a network")
    copy = tmp_path_factory.mktemp("build") / "llmbridge"
    shutil.copytree(ROOT, copy, ignore=LEFT_OVERS)
    code = "from setuptools import build_meta as b; b.build_wheel('dist'); b.build_sdist('dist')"
    run = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    (wheel,) = (copy / "dist").glob("*.whl")
    (sdist,) = (copy / "dist").glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as opened, tarfile.open(sdist) as unpacked:
        return set(opened.namelist()), {name.partition("/")[2] for name in unpacked.getnames()}


@pytest.mark.slow
def test_the_wheel_has_the_package_and_nothing_else(archives: tuple[set[str], set[str]]) -> None:
    """The wheel has every module, the marker of type hints and the licence, but no tests and benchmarks."""
    wheel, _ = archives
    modules = {str(path.relative_to(ROOT).as_posix()) for path in (ROOT / "llmbridge").rglob("*.py")}
    assert modules | {"llmbridge/py.typed"} == {name for name in wheel if name.startswith("llmbridge/")}
    rest = {name for name in wheel if not name.startswith("llmbridge/")}
    assert all(".dist-info/" in name for name in rest)
    assert any(name.endswith("/LICENSE") for name in rest)


@pytest.mark.slow
def test_the_source_archive_can_be_tested(archives: tuple[set[str], set[str]]) -> None:
    """Packagers find the tests, their data and the documents."""
    _, sdist = archives
    tests = {path for path in (ROOT / "tests").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    wanted = {str(path.relative_to(ROOT).as_posix()) for path in tests}
    wanted |= {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", ".pre-commit-config.yaml"}
    wanted |= {"setup.py", "setup.cfg", "pyproject.toml", "tox.ini", ".ci/run", ".github/workflows/ci.yml"}
    assert wanted <= sdist


def _tracked() -> list[Path]:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout.decode()
        paths = [ROOT / name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):  # without git: the source directories
        folders = ("llmbridge", "tests", "docs", "benchmarks", ".ci", ".github")
        paths = [*ROOT.glob("*.*"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    recordings = ROOT / "tests" / "data"  # recorded from other servers
    return [p for p in paths if p.is_file() and p.suffix != ".pyc" and recordings not in p.parents]


@pytest.mark.parametrize("what", FOREIGN)
def test_no_file_names(what: str) -> None:
    """No file names a particular machine or registry."""
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in _tracked()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if re.search(FOREIGN[what], line)
    ]
    assert found == []
