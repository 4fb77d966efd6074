"""What a broker owes a program that uses pika: each case is one thing, tried through the package itself.

    python3 pika_cases 127.0.0.1:5672 mainstay|rabbitmq [PART OF A NAME]

Prints `ok NAME` or `failed NAME: why` for each, then how many. The broker has the users and vhosts of `definitions.json`.
"""
import os
import sys
import time
import traceback

import connections, queues, exchanges, publishing, consuming, endings, transactions, permissions  # noqa: each adds its cases
from broker import Broker, CASES

HERE = os.path.dirname(os.path.abspath(__file__))


def main():
    only = sys.argv[3] if len(sys.argv) > 3 else ""
    passed = failed = 0
    for function in CASES:
        name = function.__name__
        if only not in name:
            continue
        broker, began = Broker(name.replace("_", "-")[:60]), time.monotonic()
        try:
            function(broker)
            broker.clean()
            passed += 1
            print("ok %s (%.2f s)" % (name, time.monotonic() - began), flush=True)
        except Exception as error:
            failed += 1
            where = traceback.extract_tb(error.__traceback__)
            lines = ",".join("%s:%d" % (os.path.basename(frame.filename), frame.lineno) for frame in where if frame.filename.startswith(HERE))
            print("failed %s: %s: %s: %s" % (name, lines, type(error).__name__, str(error)[:600]), flush=True)
            try:
                broker.clean()
            except Exception as error:
                print("# cannot clean after it: %r" % error)
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(failed > 0)


main()
