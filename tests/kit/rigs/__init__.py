"""Parts of the server put together without sockets, and clusters of them."""
