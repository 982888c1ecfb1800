"""The hot modules compiled, from the same source: optional, and never out of step with it.

mypyc turns typed Python into C. What runs for every row is compiled by ``zephyr accelerator
build`` into a folder of its own, beside a manifest with the digest of each source; a process
takes the compiled modules only while all of them match, and the Python ones otherwise. So an
edited file is never hidden by what was compiled of an older one.

    modules.py   which modules, and their digests
    manifest.py  what was compiled, and whether it fits
    build.py     compiles them
    finder.py    puts them in the place of the Python modules

Why: docs/decisions/014-the-hot-path-is-compiled.md.
"""
