"""``python -m peppp``."""

from peppp.cli import main

main()
