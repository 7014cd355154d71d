"""Signs the body of a request to a webhook."""

import hmac

HEADER = "Floorcast-Signature"


def signature(secret: str, body: bytes, now: float) -> str:
    """The header of a body at a time: `t=SECONDS,v1=HEX`.

    The receiver computes HMAC-SHA256 of `SECONDS.BODY` under the same secret, and refuses an old
    time: a recorded request cannot be sent again later.
    """
    seconds = int(now)
    digest = hmac.digest(secret.encode(), b"%d." % seconds + body, "sha256")
    return f"t={seconds},v1={digest.hex()}"
