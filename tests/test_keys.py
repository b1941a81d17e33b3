"""The keys file: found, private to its owner, rejected otherwise, and safe with two writers."""

from __future__ import annotations

import json
import os
import pickle
import stat
import subprocess
import sys
import threading
import traceback
import warnings
from pathlib import Path
from typing import Any

import pytest

from llmbridge import ConfigError, chat, keys, providers
from llmbridge.keys import keys_path, remove_key, set_key, stored_key, stored_names
from llmbridge.providers.compatible import compatible
from llmbridge.secret import Secret
from llmbridge.testing import LLMServer

KEY = "sk-kept-0123456789abcdef"

posix = pytest.mark.skipif(os.name != "posix", reason="modes and owners of POSIX")


@pytest.fixture(autouse=True)
def home(_no_settings: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home folder of the test's own, and an empty cache."""
    for name in ("XDG_CONFIG_HOME", "APPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("LLMBRIDGE_KEYS_FILE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setattr(keys, "_read", None)
    monkeypatch.setattr(keys, "_warned", set())
    return tmp_path


@pytest.fixture
def path(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a keys file that does not exist yet."""
    chosen = home / "my keys.json"
    monkeypatch.setenv("LLMBRIDGE_KEYS_FILE", str(chosen))
    return chosen


def mode(path: Path) -> int:
    """The permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def written(path: Path, content: object) -> None:
    """Writes the file as its owner's editor would."""
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    path.chmod(0o600)


class TestPlace:
    """The path of the file."""

    def test_it_is_in_the_folder_for_settings(self, home: Path) -> None:
        """By default below ~/.config."""
        assert Path(keys_path()) == home / ".config" / "llmbridge" / "keys.json"

    def test_xdg_config_home_counts(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The usual variable moves it; a relative path there is ignored, as the specification says."""
        monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "settings"))
        assert Path(keys_path()) == home / "settings" / "llmbridge" / "keys.json"
        monkeypatch.setenv("XDG_CONFIG_HOME", "settings")
        assert Path(keys_path()) == home / ".config" / "llmbridge" / "keys.json"

    def test_the_own_variable_wins(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """It names the file itself, and may begin with a tilde."""
        monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "settings"))
        monkeypatch.setenv("LLMBRIDGE_KEYS_FILE", "~/here.json")
        assert Path(keys_path()) == home / "here.json"

    def test_the_null_device_means_no_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It holds no keys, and none can be stored."""
        monkeypatch.setenv("LLMBRIDGE_KEYS_FILE", os.devnull)
        assert (stored_key("openai"), stored_names()) == (None, [])
        with pytest.raises(ConfigError, match="keys cannot be kept"):
            set_key("openai", KEY)


class TestKept:
    """Keys stay until they are removed."""

    def test_a_key_comes_back_as_a_secret(self) -> None:
        """Stripped, masked, and in a new private folder."""
        set_key("openai", f" {KEY}\n")
        assert stored_key("openai") == Secret(KEY)
        assert KEY not in repr(stored_key("openai"))

    def test_nothing_is_kept_at_first(self, home: Path) -> None:
        """Without a file there are no keys and no names, and looking does not create one."""
        assert stored_key("openai") is None
        assert stored_names() == []
        assert remove_key("openai") is False
        assert list(home.iterdir()) == []

    def test_the_last_one_set_counts_and_others_stay(self) -> None:
        """Each provider has one key."""
        set_key("openai", "sk-first")
        set_key("groq", Secret(KEY))
        set_key("openai", "sk-second")
        assert (stored_key("openai"), stored_key("groq")) == (Secret("sk-second"), Secret(KEY))
        assert stored_names() == ["groq", "openai"]

    def test_a_removed_key_is_gone(self) -> None:
        """Other keys stay."""
        set_key("openai", KEY)
        set_key("groq", KEY)
        assert remove_key("openai") is True
        assert remove_key("openai") is False
        assert (stored_key("openai"), stored_names()) == (None, ["groq"])
        assert KEY in Path(keys_path()).read_text()

    def test_the_file_is_readable_json(self, path: Path) -> None:
        """It can be written and corrected by hand; a byte order mark does no harm."""
        set_key("openai", KEY)
        assert json.loads(path.read_text()) == {"openai": KEY}
        written(path, "\ufeff" + json.dumps({"groq": KEY}))
        assert stored_key("groq") == Secret(KEY)

    def test_a_change_by_another_program_is_seen(self, path: Path) -> None:
        """The cache is valid only as long as the file is unchanged."""
        set_key("openai", "sk-aaaaaa")
        assert stored_key("openai") == Secret("sk-aaaaaa")
        before = path.stat()
        other = path.with_suffix(".new")
        written(other, path.read_text().replace("aaaaaa", "bbbbbb"))
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        other.replace(path)
        assert stored_key("openai") == Secret("sk-bbbbbb")
        path.unlink()
        assert stored_key("openai") is None

    def test_the_file_is_read_once(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An unchanged file is not opened again."""
        set_key("openai", KEY)
        assert stored_key("openai") == Secret(KEY)

        def refuse(path: str) -> dict[str, Secret]:
            raise AssertionError("read again")

        monkeypatch.setattr(keys, "_load", refuse)
        assert stored_key("openai") == Secret(KEY)
        assert stored_key("groq") is None

    @pytest.mark.parametrize("bad", ["", "a:b", "a/b", "a b", " a", None, 5])
    def test_a_name_that_no_provider_can_have_is_refused(self, bad: Any, home: Path) -> None:
        """Before anything is written."""
        with pytest.raises(ConfigError, match="name"):
            set_key(bad, KEY)
        assert list(home.iterdir()) == []

    @pytest.mark.parametrize("bad", ["", "\n", f"{KEY}\nx", f"{KEY}é", 5, None])
    def test_a_key_that_cannot_be_one_is_refused(self, bad: Any, home: Path) -> None:
        """Without being quoted, and before anything is written."""
        with pytest.raises(ConfigError, match="the key") as caught:
            set_key("openai", bad)
        assert KEY not in shown(caught.value)
        assert list(home.iterdir()) == []


def shown(error: BaseException) -> str:
    """Everything that an error may show: itself, its attributes, its traceback with locals, its pickle."""
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [frame for frame in report.stack if Path(frame.filename).name != Path(__file__).name]
    links = [error, error.__cause__, error.__context__]
    return repr([vars(error), *map(repr, links), [frame.locals for frame in frames], pickle.dumps(error)]) + str(error)


class TestRefused:
    """A file that others can read, or an invalid one, gives no key."""

    @posix
    @pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o602, 0o644, 0o666])
    def test_a_file_that_others_can_use_is_refused(self, path: Path, bits: int) -> None:
        """The error has the command to run; after it, the key is there."""
        set_key("openai", KEY)
        path.chmod(bits)
        for use in (lambda: stored_key("openai"), stored_names, lambda: set_key("groq", KEY), lambda: remove_key("x")):
            with pytest.raises(ConfigError, match="chmod 600") as caught:
                use()
            assert KEY not in shown(caught.value)
        subprocess.run(str(caught.value).rpartition(": run ")[2], shell=True, check=True)
        assert stored_key("openai") == Secret(KEY)
        assert stored_names() == ["openai"]

    @posix
    def test_a_file_of_another_user_is_rejected(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its owner may have stored their own key there."""
        set_key("openai", KEY)
        monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
        with pytest.raises(ConfigError, match="belongs to another user") as caught:
            stored_key("openai")
        assert KEY not in shown(caught.value)

    @pytest.mark.parametrize(
        "content",
        ["", f'{{"openai": "{KEY}"', f'["{KEY}"]', f'"{KEY}"', "5", f"{KEY}", "[" * 100_000, f'{{"a": "{KEY}",}}'],
    )
    def test_invalid_content_is_rejected_and_kept(self, path: Path, content: str) -> None:
        """Its content is not quoted, and no command overwrites it."""
        written(path, content)
        for use in (lambda: stored_key("openai"), lambda: set_key("groq", KEY)):
            with pytest.raises(ConfigError, match="JSON object") as caught:
                use()
            assert KEY not in shown(caught.value)
        assert path.read_text() == content

    @pytest.mark.parametrize("value", [5, None, "", f"{KEY}\n{KEY}", [KEY], {"key": KEY}])
    def test_an_invalid_key_in_the_file_is_rejected(self, path: Path, value: Any) -> None:
        """The error names it by its place: its name may be the key itself."""
        written(path, {"groq": KEY, KEY: value})
        with pytest.raises(ConfigError, match="value 2 in the keys file") as caught:
            stored_key("openai")
        assert KEY not in shown(caught.value)

    def test_bytes_that_are_not_text_are_rejected(self, path: Path) -> None:
        """Like invalid JSON."""
        path.write_bytes(b'{"openai": "' + KEY.encode() + b'\xff"}')
        path.chmod(0o600)
        with pytest.raises(ConfigError, match="JSON object") as caught:
            stored_key("openai")
        assert KEY not in shown(caught.value)

    def test_a_huge_file_is_refused(self, path: Path) -> None:
        """It cannot be a keys file."""
        written(path, "{" + " " * 1024 * 1024 + "}")
        with pytest.raises(ConfigError, match="longer than"):
            stored_key("openai")

    def test_a_folder_is_refused(self, path: Path) -> None:
        """A folder instead of the file."""
        path.mkdir()
        with pytest.raises(ConfigError, match="not a regular file"):
            stored_key("openai")

    @posix
    def test_a_pipe_is_refused_without_waiting(self, path: Path) -> None:
        """Nothing writes into it."""
        os.mkfifo(path)
        with pytest.raises(ConfigError, match="not a regular file"):
            stored_key("openai")

    def test_a_path_through_a_file_does_not_exist(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Reading finds no file; writing is an error that names the place."""
        written(home / "file", "x")
        monkeypatch.setenv("LLMBRIDGE_KEYS_FILE", str(home / "file" / "keys.json"))
        assert stored_key("openai") is None
        with pytest.raises(ConfigError, match="file"):
            set_key("openai", KEY)

    @posix
    @pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may do everything")
    def test_a_folder_that_may_not_be_used(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Keys in an inaccessible folder belong to another user; writing there is an error."""
        closed = home / "closed"
        closed.mkdir(0)
        monkeypatch.setenv("LLMBRIDGE_KEYS_FILE", str(closed / "keys.json"))
        try:
            assert stored_key("openai") is None
            with pytest.raises(ConfigError, match="Permission denied"):
                set_key("openai", KEY)
        finally:
            closed.chmod(0o700)


class TestWritten:
    """How the file is written."""

    @posix
    def test_it_is_the_owners_alone(self, home: Path) -> None:
        """File 0600, folder 0700, with any umask; existing folders are unchanged."""
        before = os.umask(0)
        try:
            (home / ".config").mkdir(0o755)
            set_key("openai", KEY)
        finally:
            os.umask(before)
        folder = home / ".config" / "llmbridge"
        assert [mode(found) for found in (home / ".config", folder, folder / "keys.json")] == [0o755, 0o700, 0o600]
        assert all(mode(found) == 0o600 for found in folder.iterdir())

    @posix
    def test_a_folder_that_is_open_to_others_is_closed(self, home: Path) -> None:
        """Only llmbridge's own folder: a folder named by a variable is shared with other files."""
        folder = home / ".config" / "llmbridge"
        folder.mkdir(parents=True)
        folder.chmod(0o755)
        set_key("openai", KEY)
        assert mode(folder) == 0o700

    @posix
    def test_a_folder_that_was_chosen_stays_open(self, path: Path, home: Path) -> None:
        """Only the file is private."""
        home.chmod(0o755)
        set_key("openai", KEY)
        assert (mode(home), mode(path)) == (0o755, 0o600)

    @pytest.mark.parametrize("step", ["fsync", "replace"])
    def test_a_failure_leaves_the_old_file(self, path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
        """A full disk in mid-write is an error, and leaves neither a broken nor a temporary file."""
        set_key("openai", "sk-before")

        def fail(*args: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, step, fail)
        with pytest.raises(ConfigError, match="No space left") as caught:
            set_key("openai", KEY)
        assert KEY not in shown(caught.value)
        assert json.loads(path.read_text()) == {"openai": "sk-before"}
        assert sorted(found.name for found in path.parent.iterdir()) == [path.name, f"{path.name}.lock"]

    @posix
    def test_a_symbolic_link_stays_one(self, path: Path, home: Path) -> None:
        """Its target is replaced."""
        (home / "real").mkdir()
        path.symlink_to(home / "real" / "kept.json")
        set_key("openai", KEY)
        assert path.is_symlink()
        assert json.loads((home / "real" / "kept.json").read_text()) == {"openai": KEY}
        assert stored_key("openai") == Secret(KEY)


ADD = """
import sys
from llmbridge.keys import set_key
print("ready", flush=True)
sys.stdin.readline()
for number in range(10):
    set_key(f"{sys.argv[1]}{number}", "sk-123456")
"""
# Systems without file locks use another way.
UNLOCKED = "import sys; sys.modules['fcntl'] = None\n"


class TestTogether:
    """Writers at the same time."""

    @pytest.mark.parametrize("way", ["", UNLOCKED], ids=["locked", "exclusive file"])
    @pytest.mark.quick(1)
    def test_no_key_of_two_processes_is_lost(self, path: Path, way: str) -> None:
        """Each adds ten; all twenty are there."""
        both = [
            subprocess.Popen(
                [sys.executable, "-c", way + ADD, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for name in ("a", "b")
        ]
        for process in both:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in both:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in both:
            process.communicate(timeout=30)
        assert [process.returncode for process in both] == [0, 0]
        assert stored_names() == sorted(f"{name}{number}" for name in "ab" for number in range(10))

    def test_no_key_of_two_threads_is_lost(self, path: Path) -> None:
        """The lock works within one process as well."""
        threads = [
            threading.Thread(target=lambda name=name: [set_key(f"{name}{n}", KEY) for n in range(10)]) for name in "abc"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(stored_names()) == 30

    @pytest.mark.parametrize("way", ["locked", "exclusive file"])
    def test_a_lock_that_stays_is_an_error(self, path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
        """Waiting ends; if only deleting the lock helps, the error says so."""
        monkeypatch.setattr(keys, "_PATIENCE", 0.0)
        if way == "exclusive file":
            monkeypatch.setitem(sys.modules, "fcntl", None)
            path.with_name(f"{path.name}.lock").touch()
            with pytest.raises(ConfigError, match=r"delete .*\.lock"):
                set_key("openai", KEY)
            path.with_name(f"{path.name}.lock").unlink()
        else:
            with keys._alone(str(path)), pytest.raises(ConfigError, match="another process"):
                set_key("openai", KEY)
        set_key("openai", KEY)
        assert stored_names() == ["openai"]

    def test_a_reader_beside_a_writer_sees_a_whole_file(self, path: Path) -> None:
        """Never a half of it."""
        set_key("openai", KEY)
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                set_key("openai", KEY * 50)
                set_key("openai", KEY)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for _ in range(200):
                assert stored_key("openai") in (Secret(KEY), Secret(KEY * 50))
        finally:
            stop.set()
            thread.join()


class TestWithoutNeed:
    """An unusable keys file, and a call that needs no key."""

    @pytest.mark.parametrize(
        ("model", "options"),
        [("ollama:m", {}), ("vllm:m", {}), ("openai:m", {"base_url": "http://127.0.0.1:9/v1"})],
    )
    def test_it_is_warned_of_once(self, path: Path, model: str, options: dict[str, Any]) -> None:
        """With the line of the call, and without the file's content."""
        written(path, "{")
        with pytest.warns(UserWarning, match="keys file .* must hold a JSON object .*sent without a key") as found:
            chat("Hi", model, **options)
        assert [warning.filename for warning in found] == [__file__]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            chat("Hi", model, **options)

    def test_a_call_that_needs_a_key_fails(self, path: Path) -> None:
        """The request could not be sent."""
        written(path, "{")
        with pytest.raises(ConfigError, match="must hold a JSON object"):
            chat("Hi", "openai:m")


@pytest.mark.parametrize(
    "name", ["llamacpp", "lmstudio", "llamafile", "transformers", "ollama-v1", "openai-compatible", "acme"]
)
def test_a_kept_key_is_sent_where_none_is_needed(name: str, server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a server of one's own too, and by a provider without a variable; the variable comes first."""
    monkeypatch.setattr(providers, "_registered", {})
    providers.register(compatible("acme"))
    set_key(name, KEY)
    asked: dict[str, Any] = {"base_url": server.base_url("openai"), "proxy": False}
    chat("Hi", f"{name}:m", **asked).complete()
    for variable in providers.find(name).key_env:
        assert variable == f"{name.upper().replace('-', '_')}_API_KEY"
        monkeypatch.setenv(variable, "sk-of-the-variable")
        chat("Hi", f"{name}:m", **asked).complete()
    sent = [received.header("Authorization") for received in server.requests]
    assert sent == [f"Bearer {KEY}", *(["Bearer sk-of-the-variable"] if name != "acme" else [])]


def test_providers_of_one_service_share_a_key() -> None:
    """OpenAI's two dialects share an account."""
    from llmbridge.providers.openai_responses import OpenAIResponses

    set_key("openai", "sk-of-openai-1")
    found = OpenAIResponses.find_key(None, False)
    assert found is not None
    assert found.reveal() == "sk-of-openai-1"
