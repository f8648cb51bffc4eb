#!/usr/bin/env bash
# Software: PyPI marshmallow 4.4.0.
# Expected: `fields.Integer(strict=True)` refuses 5.5 and takes what is a whole number, 5.0 and the query parameter "5" included; so it is the
#   way to make `?lines=` exact.
# Happens: strict takes nothing but Python's int. It refuses "5" as well as 5.0, so no query parameter and no JSON number written with a
#   fraction ever passes. Without strict, 5.5 silently becomes 5, and "5_0" 50.
# Why it matters here: a `lines`, `port` or `context` in a query can use neither form as it stands; a schema shared by a JSON body and a query
#   (as tools' arguments and REST parameters are) needs a field of its own that checks the digits, which is why there is one.
set -euo pipefail

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check marshmallow==4.4.0 2>/dev/null
cat >"$dir/load.py" <<'PYTHON'
from marshmallow import ValidationError, fields

for strict in (True, False):
    field = fields.Integer(strict=strict)
    for value in (5, 5.0, 5.5, "5", "5_0"):
        try:
            seen = repr(field.deserialize(value))
        except ValidationError:
            seen = "refused"
        print(f"strict={strict}: {value!r} is {seen}")
PYTHON
"$dir/venv/bin/python" "$dir/load.py" | tee "$dir/seen.txt"
cat >"$dir/expected.txt" <<'TEXT'
strict=True: 5 is 5
strict=True: 5.0 is refused
strict=True: 5.5 is refused
strict=True: '5' is refused
strict=True: '5_0' is refused
strict=False: 5 is 5
strict=False: 5.0 is 5
strict=False: 5.5 is 5
strict=False: '5' is 5
strict=False: '5_0' is 50
TEXT
cmp -s "$dir/seen.txt" "$dir/expected.txt" || { echo "changed"; exit 1; }
echo "as described"
