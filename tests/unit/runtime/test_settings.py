from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from services.runtime.errors import UserError
from services.runtime.settings import (
    CaptureSettings,
    QuerySettings,
    SchedulerSettings,
    load,
    options,
)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    import os

    for name in list(os.environ):
        if name.upper().startswith("RECORDER_"):
            monkeypatch.delenv(name)


def test_defaults():
    assert SchedulerSettings().listen == "127.0.0.1:8897"
    assert SchedulerSettings().storage_limit == 500 << 20
    assert QuerySettings().listen == "127.0.0.1:8898"
    assert CaptureSettings().interface == ["any"]
    assert CaptureSettings().node


def test_flags_win_over_variables_and_variables_over_the_file(tmp_path, monkeypatch):
    config = tmp_path / "recorder.toml"
    config.write_text(
        'data = "/from-file"\nlog_level = "error"\nthreads = 9\n'
        '[scheduler]\nstorage_limit = "1Gi"\nlog_level = "warning"\n'
    )
    monkeypatch.setenv("RECORDER_DATA", "/from-variable")
    monkeypatch.setenv("RECORDER_LISTEN", "127.0.0.1:1")
    settings = load(SchedulerSettings, {"listen": "127.0.0.1:2", "data": None}, config)
    assert settings.listen == "127.0.0.1:2"
    assert settings.data == Path("/from-variable")
    assert settings.storage_limit == 1 << 30
    assert settings.log_level == "warning"
    assert type(settings) is SchedulerSettings
    assert load(QuerySettings, {}, config).threads == 9
    # The file is for that one call.
    assert SchedulerSettings().storage_limit == 500 << 20


def test_a_sample_is_an_integer_or_a_decimal(tmp_path, monkeypatch):
    assert load(CaptureSettings, {}).sample == 100
    assert load(CaptureSettings, {"sample": "25"}).sample == 25
    monkeypatch.setenv("RECORDER_SAMPLE", "0.5")
    assert load(CaptureSettings, {}).sample == 0.5
    config = tmp_path / "c.toml"
    config.write_text("[capture]\nsample = true\n")
    monkeypatch.delenv("RECORDER_SAMPLE")
    with pytest.raises(UserError, match=r"'sample' in .*: True is no part"):
        load(CaptureSettings, {}, config)


def test_interfaces_from_a_variable_and_from_repeated_flags(monkeypatch):
    monkeypatch.setenv("RECORDER_INTERFACE", "lo, eth0")
    assert load(CaptureSettings, {}).interface == ["lo", "eth0"]
    assert load(CaptureSettings, {"interface": ["a,b", "c"]}).interface == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("model", "flags", "says"),
    [
        (SchedulerSettings, {"listen": "nowhere"}, "--listen: 'nowhere' is not an address"),
        (SchedulerSettings, {"listen": "a:70000"}, "write host:port"),
        (SchedulerSettings, {"listen": "::1:80"}, "in brackets"),
        (SchedulerSettings, {"storage_limit": "much"}, "--storage-limit: 'much' is not a size"),
        (SchedulerSettings, {"log_level": "loud"}, "'debug', 'info', 'warning' or 'error'"),
        (QuerySettings, {"threads": "0"}, "--threads: '0' is not right"),
        (QuerySettings, {"deadline_seconds": "nan"}, "--deadline-seconds"),
        (CaptureSettings, {"interface": ["a/b"]}, "--interface: 'a/b' is not the name"),
        (CaptureSettings, {"interface": ["x" * 16]}, "is not the name"),
        (
            CaptureSettings,
            {"sample": "0"},
            "--sample: '0' is no part of the streams; write",
        ),
        (CaptureSettings, {"sample": "100.1"}, "above 0 and at most 100, as in 25 or 0.5."),
        (CaptureSettings, {"sample": "all"}, "--sample: 'all' is no part"),
        (CaptureSettings, {"packet_memory": "5"}, "--packet-memory: 5 is not"),
    ],
)
def test_a_wrong_flag_is_one_sentence(model, flags, says):
    with pytest.raises(UserError) as caught:
        load(model, flags)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_variable_or_file_is_named(tmp_path, monkeypatch):
    config = tmp_path / "c.toml"
    config.write_text("[query]\nthread = 3\n")
    with pytest.raises(UserError, match=r"'thread' in .*c\.toml: no such setting"):
        load(QuerySettings, {}, config)
    config.write_text("thread = 3\n")
    with pytest.raises(UserError, match=r"c\.toml has 'thread': no such setting"):
        load(QuerySettings, {}, config)
    config.write_text("[[[")
    with pytest.raises(UserError, match="is not TOML"):
        load(QuerySettings, {}, config)
    with pytest.raises(UserError, match="No such file"):
        load(QuerySettings, {}, tmp_path / "absent")
    monkeypatch.setenv("RECORDER_THREADS", "many")
    with pytest.raises(UserError, match=r"^RECORDER_THREADS: 'many'"):
        load(QuerySettings, {})


def test_options_make_a_command_with_every_field(monkeypatch):
    seen = []
    app = typer.Typer()
    app.command()(options(CaptureSettings, lambda settings: seen.append(settings) or 3))
    help_text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    for name in CaptureSettings.model_fields:
        assert f"--{name.replace('_', '-')}" in help_text
        assert f"RECORDER_{name.upper()}" in help_text
    assert "256Mi" in help_text

    result = CliRunner().invoke(app, ["--interface", "lo", "--packet-memory", "1Mi"])
    assert result.exit_code == 3
    assert seen[0].interface == ["lo"]
    assert seen[0].packet_memory == 1 << 20

    result = CliRunner().invoke(app, ["--scheduler", "x"])
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "--scheduler: 'x' is not an address; write host:port, as in 127.0.0.1:8897."
    ]


HTTPS = '{"https": "tls and (http or http2)"}'


def test_words_of_kfl_come_from_a_flag_a_variable_or_a_file(tmp_path, monkeypatch):
    words = {"https": "tls and (http or http2)"}
    assert load(SchedulerSettings, {}).macros == {}
    assert load(SchedulerSettings, {"macros": HTTPS}).macros == words
    file = tmp_path / "words.json"
    file.write_text(HTTPS)
    assert load(QuerySettings, {"macros": str(file)}).macros == words
    monkeypatch.setenv("RECORDER_MACROS", HTTPS)
    assert load(QuerySettings, {}).macros == words
    monkeypatch.delenv("RECORDER_MACROS")
    config = tmp_path / "recorder.toml"
    for text in ("[macros]\n", "[query.macros]\n"):
        config.write_text(text + 'https = "tls and (http or http2)"\n')
        assert load(QuerySettings, {}, config).macros == words


def test_all_that_is_wrong_with_the_words_is_said_at_the_start():
    with pytest.raises(UserError) as raised:
        load(SchedulerSettings, {"macros": '{"http": "dns", "a": "dns and"}'})
    assert str(raised.value).startswith("--macros: The word `http` exists already.")
    assert "In the word `a`: line 1, column 8" in str(raised.value)
