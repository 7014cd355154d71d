"""Tests that a weak or contradictory configuration is refused at start."""

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
    """The error message of a configuration; checks that it hides the secret."""
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
def test_algorithm_with_its_key_source_is_accepted(config: dict[str, Any]) -> None:
    AccessConfig(**config)


def test_secret_must_have_32_bytes() -> None:
    AccessConfig(secret="s" * 32)
    AccessConfig(secret="é" * 16)
    for short in ("", "s" * 31, "é" * 15):
        assert "at least 32 bytes" in refusal(WeakKeyError, secret=short)


@pytest.mark.parametrize(
    "known", [public_pem(ec_key()), private_pem(ec_key()), jwks(jwk(ec_key())), b"ssh-rsa " * 5]
)
def test_secret_must_not_be_a_key_or_certificate(known: bytes) -> None:
    assert "use random text" in refusal(WeakKeyError, secret=known.decode())


def test_secret_must_be_unicode_text() -> None:
    assert "not valid Unicode" in refusal(UnusableKeyError, secret="\udc80" * 40)


@pytest.mark.parametrize("algorithm", ["none", "HS512", "hs256", "PS256", "", "RS256 "])
def test_unsupported_algorithm_is_refused(algorithm: str) -> None:
    message = refusal(ContradictionError, algorithm=algorithm, secret=SECRET)
    assert message == "auth.algorithm must be one of HS256, RS256, ES256, EdDSA"


def test_missing_key_source_is_refused() -> None:
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
def test_several_key_sources_are_refused(config: dict[str, Any]) -> None:
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
def test_key_source_must_match_the_algorithm(config: dict[str, Any]) -> None:
    assert "cannot be used with" in refusal(ContradictionError, **config)


@pytest.mark.parametrize(
    "url", ["", "keys", "/keys", "ftp://issuer.example/", "file:///keys", "https://", "http://[x"]
)
def test_jwks_url_must_be_http(url: str) -> None:
    assert "http or https URL" in refusal(ContradictionError, algorithm="RS256", jwks_url=url)


@pytest.mark.parametrize("leeway", [-1.0, float("nan"), float("inf"), float("-inf")])
def test_leeway_must_be_a_finite_duration(leeway: float) -> None:
    assert "leeway" in refusal(ContradictionError, secret=SECRET, leeway_seconds=leeway)


@pytest.mark.parametrize("name", ["issuer", "audience"])
def test_issuer_and_audience_must_not_be_empty(name: str) -> None:
    assert "must not be empty" in refusal(ContradictionError, secret=SECRET, **{name: ""})


def test_repr_hides_the_secret() -> None:
    config = AccessConfig(secret=SECRET)
    assert SECRET not in f"{config} {config!r}"


def test_build_verifier_checks_the_key_file(tmp_path: Path) -> None:
    config = AccessConfig(algorithm="ES256", public_key_file=tmp_path / "absent.pem")
    with pytest.raises(ConfigurationError, match="No such file"):
        build_verifier(config, ManualClock())


def test_configuration_errors_are_value_errors() -> None:
    for kind in (ContradictionError, WeakKeyError, UnusableKeyError):
        assert issubclass(kind, ConfigurationError)
        assert issubclass(kind, ValueError)


def test_repr_hides_the_account_of_the_issuer() -> None:
    config = AccessConfig(algorithm="RS256", jwks_url="https://ann:s3cret@issuer.example/keys")
    assert "s3cret" not in repr(config)
