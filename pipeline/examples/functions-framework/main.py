"""A receiver on Google's functions-framework: writes what it gets as a line of JSON to the file RECEIVED, else to
standard output.

`cloud_event` functions can only receive: the framework answers `OK` and drops what they return. One that has to answer
with an event takes another of the examples.
"""

import json
import os
import sys

import functions_framework


@functions_framework.cloud_event
def receive(event):
    data = event.data
    seen = {"attributes": dict(event.get_attributes()), "length": len(data) if isinstance(data, (str, bytes)) else None}
    if not isinstance(data, bytes) and (seen["length"] or 0) <= 1024:
        seen["data"] = data
    line = json.dumps(seen) + "\n"
    if path := os.environ.get("RECEIVED"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(line)
    else:
        sys.stdout.write(line)
