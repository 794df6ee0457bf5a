"""The fence by HTTP."""

import http.server
import json
import threading
import unittest

from toast_evacuator.fence import Endpoint
from toast_evacuator.region import Failed


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers what its server says."""

    def do_POST(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers["Authorization"]))  # type: ignore[attr-defined]
        status, body = self.server.answer  # type: ignore[attr-defined]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        pass


class Fencing(unittest.TestCase):
    def setUp(self) -> None:
        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.server.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        thread.start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(self.server.shutdown)
        self.fence = Endpoint(f"http://127.0.0.1:{self.server.server_port}", "secret")

    def answers(self, status: int, body: object) -> None:
        self.server.answer = (status, json.dumps(body))  # type: ignore[attr-defined]

    def test_off(self) -> None:
        self.answers(200, {"node": "cmp1", "state": "stopped", "seen": "2024-05-06T07:08:09.123456789Z"})
        power = self.fence.off("cmp1")
        self.assertTrue(power.off)
        self.assertAlmostEqual(power.seen, 1714979289.123456)
        self.assertEqual(self.server.asked, [("POST", "/nodes/cmp1/off", "Bearer secret")])  # type: ignore[attr-defined]

    def test_a_node_that_runs_on_is_not_off(self) -> None:
        self.answers(200, {"node": "cmp1", "state": "running", "seen": "2024-05-06T07:08:09Z"})
        self.assertFalse(self.fence.power("cmp1").off)
        with self.assertRaises(Failed):
            self.fence.off("cmp1")

    def test_a_refusal_says_why(self) -> None:
        self.answers(503, {"error": "it is told to refuse"})
        with self.assertRaisesRegex(Failed, "503 .*it is told to refuse"):
            self.fence.off("cmp1")

    def test_an_answer_that_proves_nothing(self) -> None:
        bodies: list[object] = [[], {}, {"state": "stopped"}, {"state": "stopped", "seen": "yesterday"}]
        for body in bodies:
            self.answers(200, body)
            with self.assertRaises(Failed):
                self.fence.off("cmp1")

    def test_nobody_there(self) -> None:
        with self.assertRaises(Failed):
            Endpoint("http://127.0.0.1:1", "secret", 1.0).off("cmp1")
