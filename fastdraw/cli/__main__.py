"""python -m fastdraw.cli"""

import sys

from fastdraw.cli import main

sys.exit(main())
