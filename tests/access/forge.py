"""Makes valid and forged keys and tokens for tests."""

import base64
import hashlib
import hmac
import json
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from server.access import AccessConfig, TokenVerifier, build_verifier
from tests.kit.clock import START, ManualClock

SECRET = "a secret of the tests, long enough to be one"
PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey


@cache
def rsa_key(bits: int = 2048, index: int = 0) -> RSAPrivateKey:
    """An RSA key, cached because generating one is slow."""
    return generate_rsa(65537, bits)


@cache
def ec_key(index: int = 0) -> EllipticCurvePrivateKey:
    """A P-256 key."""
    return generate_private_key(SECP256R1())


@cache
def other_curve_key() -> EllipticCurvePrivateKey:
    """A P-384 key, which ES256 cannot use."""
    return generate_private_key(SECP384R1())


@cache
def ed_key(index: int = 0) -> Ed25519PrivateKey:
    """An Ed25519 key."""
    return Ed25519PrivateKey.generate()


def key_for(algorithm: str, index: int = 0) -> PrivateKey:
    """A key for the algorithm."""
    if algorithm == "RS256":
        return rsa_key(index=index)
    return ec_key(index) if algorithm == "ES256" else ed_key(index)


def public_pem(key: PrivateKey) -> bytes:
    """The public key in PEM."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(key: PrivateKey) -> bytes:
    """The private key in PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def jwk(key: PrivateKey, kid: str | None = None, *, private: bool = False, **more: object) -> Any:
    """One key of a JWKS."""
    half: Any = key if private else key.public_key()
    if isinstance(key, RSAPrivateKey):
        body = jwt.algorithms.RSAAlgorithm.to_jwk(half, as_dict=True)
    elif isinstance(key, EllipticCurvePrivateKey):
        body = jwt.algorithms.ECAlgorithm.to_jwk(half, as_dict=True)
    else:
        body = jwt.algorithms.OKPAlgorithm.to_jwk(half, as_dict=True)
    body.pop("key_ops", None)
    return {**body, **({} if kid is None else {"kid": kid}), **more}


def jwks(*keys: object) -> bytes:
    """A JWKS document."""
    return json.dumps({"keys": keys}).encode()


def claims(*without: str, **changes: object) -> dict[str, Any]:
    """The claims of a valid token, with changes."""
    good = {"sub": "ann", "aud": "floorcast", "iat": START, "exp": START + 60}
    return {name: each for name, each in (good | changes).items() if name not in without}


def token(
    *without: str,
    key: Any = SECRET,
    algorithm: str = "HS256",
    header: dict[str, Any] | None = None,
    **changes: object,
) -> str:
    """A signed token, valid unless changed."""
    return jwt.encode(claims(*without, **changes), key, algorithm=algorithm, headers=header)


def raw_token(header: bytes, payload: bytes, secret: bytes = SECRET.encode()) -> str:
    """Arbitrary header and payload with a valid HS256 signature."""
    signing_input = _segment(header) + b"." + _segment(payload)
    signature = hmac.new(secret, signing_input, hashlib.sha256).digest()
    return (signing_input + b"." + _segment(signature)).decode()


def verifier(clock: ManualClock | None = None, **config: Any) -> TokenVerifier:
    """A verifier of HS256 tokens."""
    return build_verifier(AccessConfig(secret=SECRET, **config), clock or ManualClock())


def _segment(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
