"""Pages of lists: a cursor is the last item of the page before."""

from typing import Annotated

from pydantic import Field

from server.web.api.reading import FROM_TEXT

Limit = Annotated[int, Field(ge=1, le=100, description="items of a page"), FROM_TEXT]
# Any text is a place in the order of ids, so a cursor cannot be wrong.
Cursor = Annotated[str, Field(max_length=256, description="`next_cursor` of the page before")]
