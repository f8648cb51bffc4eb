"""Runs in the zygote: its program, `python -I -S app/shim/__main__.py ROOT SITE_PACKAGES PARENT`.

`-S` and two directories given by name spare it the search for site-packages. `-I` keeps the working directory and the
user's own packages off its path.
"""

import sys

sys.path[:0] = sys.argv[1:3]

from app.shim.zygote import serve  # noqa: E402  it is found by that path

serve(int(sys.argv[3]))
