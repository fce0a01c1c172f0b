"""`python -m keras_robust.cli`, the same as `keras-robust`."""

import sys

from keras_robust.cli import main

sys.exit(main())
