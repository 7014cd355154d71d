"""The files of `deploy/` agree with the server that they start."""

import configparser
import re
from pathlib import Path

import pytest

from server.settings import ServerSettings, env_variable, setting_names

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
VARIABLES = {env_variable(each) for each in setting_names()}


def unit() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "floorcast.service")
    return parser["Service"]


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "floorcast.service"])
def test_every_variable_is_a_setting(name: str) -> None:
    text = (DEPLOY / name).read_text()
    assert set(re.findall(r"FLOORCAST_[A-Z_]+", text)) <= VARIABLES


def test_image_copies_files_that_exist() -> None:
    copied = re.findall(
        r"^COPY (?!--from)(.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE
    )
    paths = [ROOT / each for line in copied for each in line.split()]
    assert len(paths) > 5
    assert [str(each) for each in paths if not each.exists()] == []


def test_nginx_of_the_compose_file_is_the_tested_one() -> None:
    example = (ROOT / "examples/deploy/nginx.conf").read_text().partition("\n\n")[2]
    composed = (DEPLOY / "nginx.conf").read_text().partition("\n\n")[2]
    for port, name in (("8001", "one"), ("8002", "two")):
        example = example.replace(f"127.0.0.1:{port}", f"{name}:8000")
    assert composed == example.replace("listen 127.0.0.1:8000", "listen 8000")


def test_service_managers_wait_longer_than_the_drain() -> None:
    drain_seconds = ServerSettings().drain_seconds
    assert float(unit()["TimeoutStopSec"]) > drain_seconds
    [grace] = re.findall(r"stop_grace_period: (\d+)s", (DEPLOY / "compose.yaml").read_text())
    assert float(grace) > drain_seconds


def test_unit_waits_for_a_server_that_is_ready() -> None:
    assert unit()["Type"] == "notify"
    assert float(unit()["WatchdogSec"]) > 0
