"""`python -m equipoise`, for launchers that start modules (torchrun, accelerate launch)."""

from equipoise.cli import main

main()
