"""The contract in Python: codes, names and models that server and SDK share."""

from client_sdk.contract.codes import ErrorCode

__all__ = ["ErrorCode"]
