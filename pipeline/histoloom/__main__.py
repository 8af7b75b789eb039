"""`python -m histoloom`, where the command `histoloom` is not on the PATH."""

from histoloom.cli.main import cli

if __name__ == "__main__":
    cli(prog_name="histoloom")
