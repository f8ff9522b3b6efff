"""What `status`, `doctor` and `certs check` end with: the codes that monitoring plugins have.

docs/status.md, section 3, says what each of them stands for.
"""

from enum import IntEnum


class Health(IntEnum):
    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3
