"""What is answered to whoever asks for a page."""

from dataclasses import dataclass
from typing import Final

TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    """An HTTP status, a body and its type."""

    body: bytes
    status: int = 200
    content_type: str = TEXT
