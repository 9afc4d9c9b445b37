"""`python -m checkpoint_sa` is the command `checkpoint-sa`."""

import sys

from checkpoint_sa.cli import main

sys.exit(main())
