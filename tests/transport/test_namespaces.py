"""The transport serves the namespaces that it was built with, and no other."""

import pytest
import socketio

from server.transport.namespaces import NamespaceHandler, check_namespaces
from tests.kit.clients.wire import RawClient
from tests.kit.server.in_process import running


def test_stock_namespace_is_refused_with_the_way_to_do_it() -> None:
    with pytest.raises(TypeError, match=r"Subclass floorcast\.server\.Namespace"):
        check_namespaces([NamespaceHandler("/a"), socketio.AsyncNamespace("/b")])


@pytest.mark.parametrize(
    ("names", "problem"), [(["/a", "/a"], "two namespaces"), (["/a", "/"], "stays closed")]
)
def test_name_that_is_taken_or_closed_is_refused(names: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_namespaces([NamespaceHandler(each) for each in names])


async def test_running_server_accepts_no_namespace() -> None:
    async with running() as node:
        with pytest.raises(TypeError, match="create_app"):
            node.server.sockets.register_namespace(socketio.AsyncNamespace("/later"))


@pytest.mark.parametrize("namespace", ["/", "/later", "/market/"])
async def test_unlisted_namespace_is_closed(namespace: str) -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        client.send(f"40{'' if namespace == '/' else namespace + ','}")
        refusal = await client.text()
        assert refusal.startswith("44")
        assert "unknown namespace" in refusal
        client.cut()
