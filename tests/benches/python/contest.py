"""The host and its rivals in turns: what the scripts beside this one share."""

import http.client
import json
import random
import statistics
import time
import urllib.parse


# Before each turn: threads of the side before wait for more in a busy loop, some libraries' for milliseconds.
PAUSE_S = 0.1


class Host:
    def __init__(self, url):
        self.address = urllib.parse.urlsplit(url).netloc

    def form(self, path, fields):
        parts = []
        for name, value in fields.items():
            head = f'--border\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n\r\n'
            parts += [head.encode(), value, b"\r\n"]
        body = b"".join([*parts, b"--border--\r\n"])
        return self.send(path, body, "multipart/form-data; boundary=border")

    def json(self, path, body):
        return self.send(path, json.dumps(body).encode(), "application/json")

    def send(self, path, body, kind):
        return self.open(path, body, kind).read()

    def open(self, path, body, kind):
        """The answer, of which nothing has been read yet."""
        connection = http.client.HTTPConnection(self.address)
        connection.request("POST", path, body, {"Content-Type": kind})
        response = connection.getresponse()
        assert response.status == 200, response.read()
        return response


def seconds(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def run(contests, rounds):
    """Prints a table of medians. A contest is a name, the unit, whether more is better, and what each side does: the host first."""
    print("| what | unit | pajamas-host | rival | | ratio | goal |\n| --- | --- | --- | --- | --- | --- | --- |")
    for name, unit, more_is_better, sides in contests:
        results = {side: [] for side in sides}
        for side in sides.values():
            side()  # warms up
        for _ in range(rounds):
            for side in random.sample(list(sides), len(sides)):
                time.sleep(PAUSE_S)
                results[side].append(sides[side]())
        (ours, rival) = (statistics.median(results[side]) for side in sides)
        goal = "at least 1.0×" if more_is_better else "at most 1.0×"
        print(f"| {name} | {unit} | {ours:.3g} | {rival:.3g} | {list(sides)[1]} | {ours / rival:.2f}× | {goal} |", flush=True)
