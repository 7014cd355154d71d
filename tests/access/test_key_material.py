"""Tests reading and checking public keys."""

from pathlib import Path

import pytest

from server.access import ConfigurationError, UnusableKeyError, WeakKeyError
from server.access.key_material import read_jwks, read_public_key
from tests.access.forge import (
    ec_key,
    jwk,
    jwks,
    key_for,
    other_curve_key,
    private_pem,
    public_pem,
    rsa_key,
)

X25519 = b"""-----BEGIN PUBLIC KEY-----
MCowBQYDK2VuAyEAhSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=
-----END PUBLIC KEY-----
"""


def file_with(content: bytes, folder: Path) -> Path:
    """A key file."""
    file = folder / "key.pem"
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_public_key_file_is_read(algorithm: str, tmp_path: Path) -> None:
    file = file_with(public_pem(key_for(algorithm)), tmp_path)
    assert read_public_key(file, algorithm) == key_for(algorithm).public_key()


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_file_with_a_key_for_another_algorithm_is_refused(algorithm: str, tmp_path: Path) -> None:
    others = [public_pem(key_for(each)) for each in ("RS256", "ES256", "EdDSA")]
    others.remove(public_pem(key_for(algorithm)))
    for pem in (*others, public_pem(other_curve_key()), X25519):
        with pytest.raises(UnusableKeyError, match=f"is not a key for {algorithm}"):
            read_public_key(file_with(pem, tmp_path), algorithm)


def test_private_key_is_refused_without_showing_it(tmp_path: Path) -> None:
    pem = private_pem(ec_key())
    with pytest.raises(UnusableKeyError, match="use the public key") as caught:
        read_public_key(file_with(pem, tmp_path), "ES256")
    assert pem.decode().splitlines()[1] not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"nothing", b"\xff\x00", public_pem(ec_key())[:80]],
    ids=["empty", "text", "no text", "half a key"],
)
def test_file_without_a_key_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(UnusableKeyError, match="must be a public key in PEM"):
        read_public_key(file_with(content, tmp_path), "ES256")


def test_error_names_an_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(UnusableKeyError, match=r"No such file or directory: .*absent\.pem"):
        read_public_key(tmp_path / "absent.pem", "ES256")
    with pytest.raises(ConfigurationError, match="Is a directory"):
        read_public_key(tmp_path, "ES256")


def test_short_rsa_key_is_refused(tmp_path: Path) -> None:
    short = rsa_key(bits=1024)
    with pytest.raises(WeakKeyError, match="at least 2048 bits"):
        read_public_key(file_with(public_pem(short), tmp_path), "RS256")
    assert [kid for kid, _ in read_jwks(jwks(jwk(short, "a"), jwk(rsa_key(), "b")), "RS256")] == [
        "b"
    ]


def test_jwks_key_on_another_curve_is_skipped() -> None:
    assert read_jwks(jwks(jwk(other_curve_key(), "a", alg="ES256")), "ES256") == ()


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_unusable_jwks_keys_are_skipped(algorithm: str) -> None:
    good = jwk(key_for(algorithm), "good")
    unusable: list[object] = [
        good | {"kid": "encrypts", "use": "enc"},
        good | {"kid": "signs", "key_ops": ["sign"]},
        good | {"kid": "odd", "key_ops": 7},
        good | {"kid": "other", "alg": "PS256"},
        good | {"kid": "shared", "kty": "oct", "k": "c2VjcmV0"},
        good | {"kid": ["list"]},
        good | {"kid": 7},
        jwk(key_for(algorithm), "private", private=True),
        *(good | {"kid": f"{value}", name: value} for name in "xn" for value in (7, "!", "", None)
          if name in good),
        *({each: good[each] for each in good if each != name} for name in "xn" if name in good),
        *(jwk(key_for(each), each) for each in ("RS256", "ES256", "EdDSA") if each != algorithm),
        None, 7, "key", [],
    ]  # fmt: skip
    kids = [kid for kid, _ in read_jwks(jwks(*unusable, good), algorithm)]
    assert kids == ["good"]


def test_jwks_key_with_all_parameters_is_read() -> None:
    full = jwk(ec_key(), "a", use="sig", alg="ES256", key_ops=["verify"], x5t="more")
    assert len(read_jwks(jwks(full), "ES256")) == 1
