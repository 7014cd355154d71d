"""URLs that may contain secrets: what of them may be shown, and when that is unclear."""

from urllib.parse import urlsplit

_HIDDEN = "***"


def has_unescaped_account(url: str) -> bool:
    """Whether the URL's account is ambiguous: parts of a password would show.

    For example, a password with a slash ends the host, and the rest of it becomes the path.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return True
    return any("@" in each for each in (parts.path, parts.query, parts.fragment))


def hide_secrets(url: str) -> str:
    """The URL without its account, its query and its fragment, any of which can be a secret."""
    scheme, separator, _ = url.partition("://")
    if has_unescaped_account(url):
        return f"{scheme}{separator}{_HIDDEN}" if separator else _HIDDEN
    parts = urlsplit(url)
    _, account_end, hosts = parts.netloc.rpartition("@")
    account = f"{_HIDDEN}@" if account_end else ""
    query = f"?{_HIDDEN}" if parts.query else ""
    return f"{parts.scheme}://{account}{hosts}{parts.path}{query}"
