"""`python -m seedscope`, the same as the `seedscope` command."""

import sys

from .cli import main

sys.exit(main())
