"""`python -m seedscope`, the same as the `seedscope` command."""

import sys

from .cli.main import main

sys.exit(main())
