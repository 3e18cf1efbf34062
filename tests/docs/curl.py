"""What the pages need of curl (-s, -X, -H, -d, a URL), for machines that have none."""

from __future__ import annotations

import argparse
import sys
import urllib.error
import urllib.request


def main() -> int:
    """Send one request and print what comes back, whatever its status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-s", action="store_true")
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="data")
    parser.add_argument("url")
    given = parser.parse_args()
    data = None if given.data is None else given.data.encode()
    request = urllib.request.Request(given.url, data, method=given.method)
    for header in given.headers:
        name, _, value = header.partition(":")
        request.add_header(name, value.strip())
    try:
        with urllib.request.urlopen(request) as response:
            body = response.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    except urllib.error.URLError:
        return 7
    sys.stdout.write(body.decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
