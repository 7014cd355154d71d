"""The contract in other languages: JSON Schema, AsyncAPI and TypeScript."""

from client_sdk.contract.formats.asyncapi import asyncapi
from client_sdk.contract.formats.json_schema import json_schema
from client_sdk.contract.formats.typescript import typescript

__all__ = ["asyncapi", "json_schema", "typescript"]
