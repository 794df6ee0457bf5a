"""What a vantage point makes of what it hears."""

import socket
import time
import unittest
import unittest.mock

from toast_evacuator import watch, wire
from toast_evacuator.config import Timing
from toast_evacuator.watch import Watcher, answers


class Watching(unittest.TestCase):
    def setUp(self) -> None:
        self.watcher = Watcher(["cmp1", "cmp2"], Timing())

    def test_a_heartbeat_ends_the_suspicion(self) -> None:
        self.watcher.heard("cmp1", 10.0)
        self.assertEqual(self.watcher.suspects(11.0), [])
        self.assertEqual(self.watcher.suspects(12.5), ["cmp1"])
        self.watcher.checked("cmp1", False)
        self.watcher.checked("cmp1", False)
        self.assertEqual(self.watcher.view(13.0)["cmp1"], {"silent": 3.0, "failures": 2})
        self.watcher.heard("cmp1", 13.0)
        self.assertEqual(self.watcher.view(13.0)["cmp1"], {"silent": 0.0, "failures": 0})

    def test_flapping_starts_the_count_anew(self) -> None:
        self.watcher.heard("cmp1", 10.0)
        for answered in (False, False, True, False):
            self.watcher.checked("cmp1", answered)
        self.assertEqual(self.watcher.view(16.0)["cmp1"]["failures"], 1)

    def test_who_never_beat_is_not_suspected(self) -> None:
        self.assertEqual(self.watcher.suspects(1e6), [])
        self.assertIsNone(self.watcher.view(1e6)["cmp2"]["silent"])

    def test_a_stranger_is_not_watched(self) -> None:
        self.watcher.heard("other", 10.0)
        self.assertEqual(set(self.watcher.view(10.0)), {"cmp1", "cmp2"})

    def test_a_refused_connection_is_an_answer(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with unittest.mock.patch.object(watch, "PING", ["false"]):
            self.assertTrue(answers("127.0.0.1", port))

    def test_an_echo_is_an_answer(self) -> None:
        with unittest.mock.patch.object(watch, "PING", ["true"]), unittest.mock.patch("socket.create_connection", side_effect=TimeoutError):
            self.assertTrue(answers("127.0.0.1", 22))
        with (
            unittest.mock.patch.object(watch, "PING", ["false"]),
            unittest.mock.patch("socket.create_connection", side_effect=TimeoutError),
        ):
            self.assertFalse(answers("127.0.0.1", 22))


class Datagrams(unittest.TestCase):
    def setUp(self) -> None:
        self.opener = wire.Opener("key")

    def test_one_is_opened(self) -> None:
        self.assertEqual(self.opener.open(wire.seal("key", "cmp1", 100.0, {"a": 1}), 100.2), {"a": 1, "from": "cmp1", "at": 100.0})

    def test_another_key(self) -> None:
        with self.assertRaises(wire.Refused):
            self.opener.open(wire.seal("other", "cmp1", 100.0, {}), 100.0)

    def test_a_changed_one(self) -> None:
        with self.assertRaises(wire.Refused):
            self.opener.open(wire.seal("key", "cmp1", 100.0, {})[:-1] + b"]", 100.0)

    def test_the_same_again(self) -> None:
        datagram = wire.seal("key", "cmp1", 100.0, {})
        self.opener.open(datagram, 100.0)
        with self.assertRaises(wire.Refused):
            self.opener.open(datagram, 100.5)
        self.opener.open(wire.seal("key", "cmp2", 99.0, {}), 100.5)

    def test_one_of_long_ago(self) -> None:
        with self.assertRaises(wire.Refused):
            self.opener.open(wire.seal("key", "cmp1", 100.0, {}), 200.0)

    def test_rubbish_is_passed_over(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inlet, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            inlet.bind(("127.0.0.1", 0))
            with self.assertLogs(wire.log, "WARNING"):
                out.sendto(b"rubbish", inlet.getsockname())
                self.assertIsNone(wire.receive(inlet, self.opener, 1.0))
            self.assertIsNone(wire.receive(inlet, self.opener, 0.0))
            out.sendto(wire.seal("key", "cmp1", time.time(), {}), inlet.getsockname())
            self.assertIsNotNone(wire.receive(inlet, self.opener, 1.0))
