"""A configuration that is weak or contradicts itself is refused before anything is served."""

from pathlib import Path
from typing import Any

import pytest

from server.access import (
    AccessConfig,
    ConfigurationError,
    ContradictionError,
    UnusableKeyError,
    WeakKeyError,
    build_verifier,
)
from tests.access.forge import SECRET, ec_key, jwk, jwks, private_pem, public_pem
from tests.kit.clock import ManualClock

FILE = Path("key.pem")
URL = "https://issuer.example/keys"


def refusal(kind: type[ConfigurationError], **config: Any) -> str:
    """What is said about a configuration; never with the secret in it."""
    with pytest.raises(kind) as caught:
        AccessConfig(**config)
    secret = config.get("secret")
    assert not secret or secret not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"secret": SECRET},
        {"algorithm": "RS256", "public_key_file": FILE},
        {"algorithm": "ES256", "jwks_url": URL},
        {"algorithm": "EdDSA", "jwks_url": "http://127.0.0.1:8080/keys"},
        {"secret": SECRET, "issuer": "us", "audience": "them", "leeway_seconds": 5.0},
    ],
)
def test_one_algorithm_with_its_one_source_is_taken(config: dict[str, Any]) -> None:
    AccessConfig(**config)


def test_a_secret_has_at_least_32_bytes() -> None:
    AccessConfig(secret="s" * 32)
    AccessConfig(secret="é" * 16)
    for short in ("", "s" * 31, "é" * 15):
        assert "at least 32 bytes" in refusal(WeakKeyError, secret=short)


@pytest.mark.parametrize(
    "known", [public_pem(ec_key()), private_pem(ec_key()), jwks(jwk(ec_key())), b"ssh-rsa " * 5]
)
def test_a_secret_that_is_a_key_of_another_kind_is_refused(known: bytes) -> None:
    assert "give random text" in refusal(WeakKeyError, secret=known.decode())


def test_a_secret_that_is_no_text_is_refused() -> None:
    assert "not valid Unicode" in refusal(UnusableKeyError, secret="\udc80" * 40)


@pytest.mark.parametrize("algorithm", ["none", "HS512", "hs256", "PS256", "", "RS256 "])
def test_an_algorithm_that_is_not_offered_is_refused(algorithm: str) -> None:
    message = refusal(ContradictionError, algorithm=algorithm, secret=SECRET)
    assert message == "auth.algorithm must be one of HS256, RS256, ES256, EdDSA"


def test_without_a_source_of_keys_nothing_starts() -> None:
    assert refusal(ContradictionError).endswith("set are: none")


@pytest.mark.parametrize(
    "config",
    [
        {"secret": SECRET, "public_key_file": FILE},
        {"secret": SECRET, "jwks_url": URL},
        {"algorithm": "RS256", "public_key_file": FILE, "jwks_url": URL},
        {"algorithm": "RS256", "secret": SECRET, "public_key_file": FILE, "jwks_url": URL},
    ],
)
def test_several_sources_at_once_are_refused(config: dict[str, Any]) -> None:
    assert "set exactly one" in refusal(ContradictionError, **config)


@pytest.mark.parametrize(
    "config",
    [
        {"algorithm": "HS256", "public_key_file": FILE},
        {"algorithm": "HS256", "jwks_url": URL},
        {"algorithm": "RS256", "secret": SECRET},
        {"algorithm": "EdDSA", "secret": SECRET},
    ],
)
def test_a_source_that_does_not_go_with_the_algorithm_is_refused(config: dict[str, Any]) -> None:
    assert "does not go with" in refusal(ContradictionError, **config)


@pytest.mark.parametrize(
    "url", ["", "keys", "/keys", "ftp://issuer.example/", "file:///keys", "https://", "http://[x"]
)
def test_a_jwks_is_fetched_over_http_alone(url: str) -> None:
    assert "http or https URL" in refusal(ContradictionError, algorithm="RS256", jwks_url=url)


@pytest.mark.parametrize("leeway", [-1.0, float("nan"), float("inf"), float("-inf")])
def test_a_leeway_that_is_no_length_of_time_is_refused(leeway: float) -> None:
    assert "leeway" in refusal(ContradictionError, secret=SECRET, leeway_seconds=leeway)


@pytest.mark.parametrize("name", ["issuer", "audience"])
def test_an_empty_name_is_refused(name: str) -> None:
    assert "must not be empty" in refusal(ContradictionError, secret=SECRET, **{name: ""})


def test_the_secret_does_not_show_when_the_configuration_is_printed() -> None:
    config = AccessConfig(secret=SECRET)
    assert SECRET not in f"{config} {config!r}"


def test_a_key_file_is_judged_before_anything_is_served(tmp_path: Path) -> None:
    config = AccessConfig(algorithm="ES256", public_key_file=tmp_path / "absent.pem")
    with pytest.raises(ConfigurationError, match="No such file"):
        build_verifier(config, ManualClock())


def test_every_refusal_is_one_kind_of_value_error() -> None:
    for kind in (ContradictionError, WeakKeyError, UnusableKeyError):
        assert issubclass(kind, ConfigurationError)
        assert issubclass(kind, ValueError)
