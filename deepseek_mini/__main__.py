"""``python -m deepseek_mini``: see ``deepseek_mini.cli``."""

import sys

from deepseek_mini.cli import main

if __name__ == "__main__":
    sys.exit(main())
