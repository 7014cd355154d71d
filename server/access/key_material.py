"""Reads and checks keys: a secret, and public keys from PEM files and JWKS documents."""

import base64
from pathlib import Path

import jwt
import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import HMACAlgorithm

from server.access.configuration import UnusableKeyError, WeakKeyError

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey
Key = jwt.PyJWK | PublicKey

MIN_RSA_BITS = 2048
_KEY_TYPES = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}


class _PreparedHmac(HMACAlgorithm):
    """HS256 of one secret, which PyJWT inspects once and not again for each token."""

    def __init__(self, secret: str) -> None:
        super().__init__(HMACAlgorithm.SHA256)
        self._prepared = super().prepare_key(secret)

    def prepare_key(self, key: str | bytes) -> bytes:
        return self._prepared


def read_secret(secret: str) -> jwt.PyJWK:
    """The key of a secret; raises PyJWT's `InvalidKeyError` if the text is a public key."""
    encoded = base64.urlsafe_b64encode(secret.encode()).decode()
    key = jwt.PyJWK({"kty": "oct", "k": encoded}, algorithm="HS256")
    key.Algorithm = _PreparedHmac(secret)
    return key


def read_public_key(path: Path, algorithm: str) -> PublicKey:
    """Read the public key of a PEM file; raises `ConfigurationError` if it is unusable."""
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise UnusableKeyError(f"auth.public_key_file: {error.strerror}: {path}") from None
    if b"PRIVATE KEY" in pem:
        raise UnusableKeyError("auth.public_key_file holds a private key: use the public key")
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise UnusableKeyError("auth.public_key_file must be a public key in PEM") from None
    return _check_key(key, algorithm)


def read_jwks(document: bytes, algorithm: str) -> tuple[tuple[str | None, PublicKey], ...]:
    """The usable keys of a JWKS (RFC 7517) with their ids.

    Skips unusable keys; raises `ValueError` if the document is not a JWKS.
    """
    body = orjson.loads(document)
    if not isinstance(body, dict) or not isinstance(body.get("keys"), list):
        raise ValueError("not a JWKS")
    keys: list[tuple[str | None, PublicKey]] = []
    for jwk in body["keys"]:
        if not _is_verification_key(jwk, algorithm):
            continue
        try:
            keys.append(
                (jwk.get("kid"), _check_key(jwt.PyJWK(jwk, algorithm=algorithm).key, algorithm))
            )
        except (jwt.PyJWTError, ValueError, UnsupportedAlgorithm):
            continue
    return tuple(keys)


def _is_verification_key(jwk: object, algorithm: str) -> bool:
    """Whether a key is declared for verifying signatures of this algorithm (RFC 7517, 4)."""
    if not isinstance(jwk, dict):
        return False
    operations = jwk.get("key_ops", ["verify"])
    return (
        jwk.get("kty") == _KEY_TYPES[algorithm]
        and jwk.get("use", "sig") == "sig"
        and jwk.get("alg", algorithm) == algorithm
        and isinstance(operations, list)
        and "verify" in operations
        and isinstance(jwk.get("kid"), str | None)
    )


def _check_key(key: object, algorithm: str) -> PublicKey:
    """Return the key if it is a public key of the algorithm; raises `ConfigurationError`.

    A published private key is refused: anyone could sign with it.
    """
    if algorithm == "RS256" and isinstance(key, RSAPublicKey):
        if key.key_size < MIN_RSA_BITS:
            raise WeakKeyError(
                f"auth.public_key_file: an RSA key must have at least {MIN_RSA_BITS} bits"
            )
        return key
    if (
        algorithm == "ES256"
        and isinstance(key, EllipticCurvePublicKey)
        and isinstance(key.curve, SECP256R1)
    ):
        return key
    if algorithm == "EdDSA" and isinstance(key, Ed25519PublicKey | Ed448PublicKey):
        return key
    raise UnusableKeyError(f"auth.public_key_file is not a key for {algorithm}")
