"""The queue's address: completed from the environment, and never shown with its password."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from controller.config import ConfigError, validate
from controller.config_text import as_toml
from controller.queue_address import QueueAddressError, queue_address
from controller.resume import settings_of
from controller.run_folder import RunFolder

SECRET = "p@ss/w%rd"
QUOTED = "p%40ss%2Fw%25rd"
ENVIRONMENT = {"T2PO_QUEUE_USER": "worker", "T2PO_QUEUE_PASSWORD": SECRET}


@pytest.mark.parametrize(
    ("url", "complete"),
    [
        ("redis://h:1/0", f"redis://worker:{QUOTED}@h:1/0"),
        ("rediss://other@h:1/0", f"rediss://other:{QUOTED}@h:1/0"),
        ("redis://own:pw@h:1/0", "redis://own:pw@h:1/0"),
        ("redis://:pw@h:1/0?db=1", "redis://:pw@h:1/0?db=1"),
        ("redis://own:***@h:1/0", f"redis://own:{QUOTED}@h:1/0"),
        ("redis://h:1/0?password=***&db=1", f"redis://worker:{QUOTED}@h:1/0?db=1"),
        ("unix:///tmp/s.sock", "unix:///tmp/s.sock?username=worker&password=p%40ss/w%25rd"),
    ],
)
def test_what_the_url_leaves_out_comes_from_the_environment(url: str, complete: str) -> None:
    assert queue_address(url, "", ENVIRONMENT) == complete


@pytest.mark.parametrize("url", ["redis://h:1/0", "rediss://user@h:1/0?ssl_ca_certs=/x", "unix:///tmp/s"])
def test_url_without_credentials_stays_as_it_is(url: str) -> None:
    assert queue_address(url, "", {}) == url


def test_ca_file(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("")
    assert queue_address("rediss://h:1/0", str(path), {}) == f"rediss://h:1/0?ssl_ca_certs={path}"
    with pytest.raises(QueueAddressError, match=r"none\.pem: No such file.*readable PEM"):
        queue_address("rediss://h:1/0", str(tmp_path / "none.pem"), {})
    with pytest.raises(
        QueueAddressError, match=r"queue.ca_file = .*redis://u:\*\*\*@h:1/0 has no TLS; write rediss://"
    ):
        queue_address("redis://u:pw@h:1/0", str(path), {})


def test_hidden_password_needs_the_environment() -> None:
    with pytest.raises(QueueAddressError, match="not kept in the run folder; set T2PO_QUEUE_PASSWORD"):
        queue_address("redis://:***@h:1/0", "", {})


def test_url_that_is_none() -> None:
    with pytest.raises(QueueAddressError, match=r"queue.url = redis://u:\*\*\*@h:none/0: "):
        queue_address("redis://u:pw@h:none/0", "", {})


def test_password_is_in_no_configuration_no_run_folder_and_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    config = validate({"queue": {"url": "redis://u:geheim@h:1/0"}, "runs_dir": str(tmp_path), "name": "run"}, "test")
    assert "geheim" not in as_toml(config) and "redis://u:***@h:1/0" in as_toml(config)
    assert "geheim" not in str(settings_of(config))
    with RunFolder.create(config, "test") as folder:
        assert folder.config().queue.url == "redis://u:***@h:1/0"
    for path in folder.path.rglob("*"):
        assert not path.is_file() or b"geheim" not in path.read_bytes(), path
    with pytest.raises(ConfigError) as caught:
        validate({"queue": {"urll": "redis://u:geheim@h:1/0"}}, "test")
    assert "geheim" not in str(caught.value)
    assert "geheim" not in caplog.text
