#!/usr/bin/env python3
"""Send the rows of a CSV file to a device's endpoint and print what it says of each. Needs Python 3.8 and nothing else.

    score_client.py rows.csv [--url http://127.0.0.1:8377] [--token-file FILE]

The file is as in the device's spool: `time,pump,<channel>,..`, times in RFC 3339 or epoch milliseconds, empty = missing.
Prints one JSON line a row. Exit code 0: all scored, 1: refused (the device's sentence is on standard error), 2: not reached.
"""

import argparse
import csv
import json
import sys
import urllib.error
import urllib.request

ROWS_AT_ONCE = 500


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--url", default="http://127.0.0.1:8377")
    parser.add_argument("--token-file")
    options = parser.parse_args()
    headers = {"Content-Type": "application/json"}
    if options.token_file:
        with open(options.token_file, encoding="ascii") as stream:  # noqa: PTH123 - a script for any Python
            headers["Authorization"] = "Bearer " + stream.read().strip()
    with open(options.file, encoding="utf-8-sig", newline="") as stream:  # noqa: PTH123
        rows = [parse(row) for row in csv.DictReader(stream)]
    for start in range(0, len(rows), ROWS_AT_ONCE):
        body = json.dumps({"rows": rows[start : start + ROWS_AT_ONCE]}).encode()
        request = urllib.request.Request(options.url + "/score", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            sys.exit("refused ({}): {}".format(error.code, json.load(error)["error"]))
        except OSError as error:
            sys.stderr.write(f"not reached: {error}\n")
            sys.exit(2)
        for row in answer["rows"]:
            sys.stdout.write(json.dumps(row) + "\n")


def parse(row):
    """A row as the endpoint takes it: numbers where the file has text, null where it has nothing."""
    time = row.pop("time")
    found = {"time": int(time) if time.isdigit() else time, "pump": row.pop("pump")}
    for channel, text in row.items():
        found[channel] = float(text) if text else None
    return found


if __name__ == "__main__":
    main()
