"""Networks and the one door through which they are made, loaded and saved."""

import os

# diffusers warns of every configuration key that it wrote itself and no longer reads.
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
