"""Opens a backend of an installed package, named by the scheme of `broker.url`."""

from server.brokers.errors import BrokerError
from server.plugins import PluginError, create_plugin, plugin_names
from server.ports import ApplicationBackend, BackendOptions

ENTRY_POINT_GROUP = "floorcast.backends"


def is_installed(url: str) -> bool:
    """Whether a package offers a backend for URLs of this scheme."""
    return _scheme(url) in plugin_names(ENTRY_POINT_GROUP)


def open_backend(options: BackendOptions) -> ApplicationBackend:
    """Open the backend of a URL; raises `BrokerError` if its package fails or offers another."""
    scheme = _scheme(options.url)
    try:
        backend: ApplicationBackend | None = create_plugin(
            ENTRY_POINT_GROUP, scheme, "backend", options, _problem_of
        )
    except PluginError as error:
        raise BrokerError(str(error)) from error
    if backend is None:
        raise BrokerError(f"no package offers a backend {scheme!r}")
    return backend


def _problem_of(backend: object) -> str | None:
    return None if isinstance(backend, ApplicationBackend) else "is no ApplicationBackend"


def _scheme(url: str) -> str:
    return url.partition(":")[0].lower()
