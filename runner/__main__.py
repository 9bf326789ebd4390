"""`python -m runner` is `ostinato`."""

from runner.cli import main

raise SystemExit(main())
