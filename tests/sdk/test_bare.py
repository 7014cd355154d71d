"""The SDK runs without the server and without the server's dependencies."""

import subprocess
import sys

_BARE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"no {name} in a bare environment", name=name)

BLOCKED = {"server", "socketio", "engineio", "orjson", "jwt", "cryptography", "uvloop",
           "pandas", "pyarrow", "numpy", "pytest"}
sys.meta_path.insert(0, Absent())
import client_sdk
for name in client_sdk.__all__:
    getattr(client_sdk, name)
client_sdk.Client("http://localhost:8000", "token")
print(sorted(name for name in sys.modules if name.partition(".")[0] in BLOCKED))
"""


def test_sdk_works_without_the_servers_dependencies() -> None:
    ran = subprocess.run([sys.executable, "-c", _BARE], capture_output=True, text=True, check=False)
    assert ran.stderr == ""
    assert ran.stdout == "[]\n"
