import sys

from .cli import main

sys.exit(main())  # noqa: TID251 (the one place that ends the process)
