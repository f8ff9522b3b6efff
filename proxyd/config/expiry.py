"""How long before its end a certificate is told of: by the log, doctor, status and `certs check`.

One number for all, so that none of them is silent about what another warns of. Two weeks are gone
with somebody's holidays; a month is not.
"""

from typing import Final

EXPIRY_DAYS: Final = 30
EXPIRY_S: Final = EXPIRY_DAYS * 24 * 60 * 60
