"""Is the capture alive? Asks its metrics: the newest report must be younger than a minute.

It judges the process and not the recovery point: restarting a capture mends no vault that is away.
"""

import os
import re
import sys
import urllib.request

LIMIT_S = 60.0
ANSWER_S = 5.0


def main() -> int:
    """0 when a capture reported within the last minute, 1 otherwise."""
    url = f"http://127.0.0.1:{os.environ.get('DR_METRICS_PORT', '9187')}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
            text = answer.read().decode()
    except OSError as error:
        print(f"{url} does not answer: {error}")
        return 1
    ages_s = [float(age) for age in re.findall(r"^dr_capture_report_age_seconds\{[^}]*\} (\S+)$", text, re.MULTILINE)]
    print(f"seconds since each capture's newest report: {ages_s}")
    return 0 if ages_s and max(ages_s) < LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())
