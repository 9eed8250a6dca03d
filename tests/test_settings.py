from pathlib import Path

import pytest

from mimo_cli.errors import UsageError
from mimo_cli.settings import (
    SettingsFile,
    check_names,
    file_defaults,
    hub_cache_folder,
    models_folder,
    read_settings_files,
    state_folder,
    user_settings_path,
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "MIMO_HOME",
        "HF_HOME",
        "HF_HUB_CACHE",
        *(f"XDG_{kind}_HOME" for kind in ("CONFIG", "DATA", "CACHE", "STATE")),
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def test_places_follow_the_xdg_rules(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert user_settings_path() == home / ".config/mimo/config.toml"
    assert models_folder() == home / ".local/share/mimo/models"
    assert state_folder() == home / ".local/state/mimo"
    assert hub_cache_folder() == home / ".cache/huggingface/hub"
    monkeypatch.setenv("XDG_CONFIG_HOME", "/etc/xdg")
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/ignored")
    monkeypatch.setenv("MIMO_HOME", "/srv/mimo")
    monkeypatch.setenv("HF_HOME", "/srv/hf")
    assert user_settings_path() == Path("/etc/xdg/mimo/config.toml")
    assert state_folder() == home / ".local/state/mimo"
    assert models_folder() == Path("/srv/mimo/models")
    assert hub_cache_folder() == Path("/srv/hf/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "/mnt/hub")
    assert hub_cache_folder() == Path("/mnt/hub")


def test_without_files_there_are_no_defaults(home: Path) -> None:
    assert file_defaults(read_settings_files(), "chat") == {}


def test_project_file_wins_over_user_file_and_own_table_over_top_level(home: Path) -> None:
    user = home / ".config/mimo/config.toml"
    user.parent.mkdir(parents=True)
    user.write_text('temp = 0.1\ntop-p = 0.5\nmodel = "/m"\n[chat]\nseed = 7\n[bench]\nn = 1\n')
    Path("mimo.toml").write_text("temp = 0.2\n[chat]\ntop_p = 0.6\n")
    found = file_defaults(read_settings_files(), "chat")
    assert {name: value for name, (value, _) in found.items()} == {"temp": 0.2, "top_p": 0.6, "model": "/m", "seed": 7}
    assert found["temp"][1] == Path("mimo.toml")
    assert found["model"][1] == user


@pytest.mark.parametrize("key", ["allow-net", "allow_net", "output"])
def test_project_file_may_not_open_the_network_or_name_output(home: Path, key: str) -> None:
    Path("mimo.toml").write_text(f'{key} = "x"\n')
    with pytest.raises(UsageError, match="a project file may not"):
        file_defaults(read_settings_files(), "chat")


def test_project_file_may_keep_the_network_closed(home: Path) -> None:
    Path("mimo.toml").write_text("[chat]\nallow-net = false\n")
    (value, _) = file_defaults(read_settings_files(), "chat")["allow_net"]
    assert value is False


def test_user_file_may_open_the_network(home: Path) -> None:
    file = SettingsFile(Path("config.toml"), {"allow-net": True}, is_project=False)
    assert file.for_command("chat") == {"allow_net": True}


def test_broken_file_is_named(home: Path) -> None:
    Path("mimo.toml").write_text("temp = = 1\n")
    with pytest.raises(UsageError, match=r"`mimo.toml` cannot be read"):
        read_settings_files()


OPTIONS = {"chat": ["temp", "max_tokens"], "bench": ["repeats"]}


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"tmep": 1}, "`tmep`, which is no option"),
        ({"chat": {"repeats": 1}}, "`chat.repeats`, which is no option"),
        ({"chatt": {"temp": 1}}, r"table `\[chatt\]`"),
    ],
)
def test_unknown_names_are_refused(values: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        check_names([SettingsFile(Path("mimo.toml"), values, is_project=True)], OPTIONS)


def test_known_names_pass_in_either_spelling() -> None:
    values = {"temp": 1, "max-tokens": 3, "repeats": 2, "chat": {"max_tokens": 1}}
    check_names([SettingsFile(Path("mimo.toml"), values, is_project=True)], OPTIONS)
