"""The behaviours that the server is judged by: those of five systems that it replaces."""

TITLES = {
    "A": (
        "a new client connects",
        "a client disconnects",
        "disconnecting somebody unknown does no harm",
        "one user on several devices",
        "the count of connections is right at every step",
        "a broadcast reaches everybody",
        "a message to a user reaches every device of theirs",
        "a message to a room reaches its members",
        "a price update has its format",
        "a broadcast with nobody there",
        "an error while connecting is contained",
        "a send that fails is contained and cleaned up",
        "stale connections are removed",
        "a connection times out",
        "many connect at once",
        "many disconnect at once",
        "broadcasts at the same time",
        "publishing from another thread is safe and counts stay right",
    ),
    "B": (
        "seven types of stream",
        "five states of a subscription, and the moves between them",
        "a message with a symbol",
        "a message without a symbol",
        "a message as JSON",
        "the fields of a subscription",
        "the key of a subscription with a symbol",
        "the key of a subscription without one",
        "a new manager is empty",
        "adding one connection",
        "several connections of one user",
        "several users are kept apart",
        "removing closes the socket and cleans every index",
        "removing one of two keeps the other",
        "a user's connections are listed",
        "a subscription shows in both directions",
        "several subscriptions of one user",
        "removing a subscription clears both directions",
        "the subscribers of a public topic",
        "the subscribers of a private topic",
        "the last connection of a user takes the subscriptions with it",
        "another connection of a user keeps the user's record",
        "cleaning up everything closes all and leaves nothing",
    ),
    "C": (
        "a valid token is accepted",
        "an invalid token is refused",
        "where market data is open, anyone may listen",
        "the limit of connections per address is exact, also all at once",
        "a closed connection gives its place back",
        "heartbeats are sent",
        "a client that does not answer is closed in time, and nothing goes on running",
        "two clients both receive",
        "channels do not leak into each other",
        "order within a channel",
        "a slow client loses only old values and delays nobody",
        "shutdown closes everybody",
        "a close that fails is contained",
        "a send loop that fails is contained",
        "one client on several channels at once",
        "heartbeats and broadcasts interleave safely",
        "more than a hundred clients at once",
        "the size of the queue is a setting",
    ),
    "D": (
        "a connection record, required and optional fields, metadata",
        "records compare and print sensibly",
        "a user's connections and their details are found",
        "a manager starts empty; one a server; two apps share nothing",
        "adding and removing keeps every index in step",
        "removing somebody unknown does no harm",
        "what is handed out is a copy",
        "sending to all connections of a user",
        "a failed connection is cleaned up and the rest are served",
        "sending to an unknown user reaches nobody and raises nothing",
        "a connection that cannot be written to is passed over",
        "thread sessions reach their users",
        "an error while routing is contained",
        "a critical event comes again until it is acknowledged",
        "a broadcast with one failing client serves the others",
        "a broadcast to nobody",
        "connecting returns the details, disconnecting cleans up",
        "a connection is found by its user",
        "a handler that raises gives an error and leaves the connection usable",
        "joining a job with metadata",
        "an id of a wrong type is refused",
        "an id of a wrong pattern is refused",
        "job rooms form",
        "leaving a job",
        "statistics have a stable shape",
        "statistics follow what happens",
        "statistics after removals",
        "changes during a broadcast",
        "after a partial failure the rest goes on",
        "adding and removing at the same time",
        "operations of one user at the same time",
        "a stress run of both",
        "a connection id used twice",
        "no user id",
        "an empty id",
        "a very large message",
        "user ids in any script",
        "a closed socket is noticed",
        "live and dead sockets in one broadcast",
        "nested data survives the trip",
        "ten thousand connections stay fast",
        "races between joining and leaving",
        "users are kept apart",
        "indexes agree after any sequence of operations",
        "nothing is left in memory after everybody left",
        "sending is rate limited",
        "the health of connections is checked",
        "health shows in metrics",
        "malicious input is refused and leaves nothing behind",
        "times are aware of their zone, in UTC",
    ),
    "E": (
        "a valid token connects: welcome, user id, session id",
        "an invalid token is refused",
        "a missing token is refused",
        "several clients in a session",
        "nothing leaks between sessions",
        "leaving is announced and counted",
        "sending to a session that does not exist is a clear error",
        "the count of a session that does not exist is 0",
        "orgs are kept apart",
        "many connections",
        "rapid connecting and disconnecting",
        "the order of messages",
        "large messages",
        "a cut network: the client is back with nothing lost",
        "no token reaches a session that it does not allow",
    ),
}

ROWS = {
    f"{group}{number}": title
    for group, titles in TITLES.items()
    for number, title in enumerate(titles, 1)
}


def rows(text: str) -> list[str]:
    """Spell out `A1-A3 B2`."""
    spelled = []
    for part in text.split():
        first, _, last = part.partition("-")
        end = int(last[1:]) if last else int(first[1:])
        spelled += [f"{first[0]}{number}" for number in range(int(first[1:]), end + 1)]
    return spelled


# What later releases bring; each shortens this list.
NOT_YET_DUE = frozenset(
    rows(
        "A6-A10 A12 A17-A18 B1-B8 B16-B23 C8-C12 C14-C18 D8-D16 D19-D31 D40 D42-D43 D47-D48 E4-E15"
    )
)
