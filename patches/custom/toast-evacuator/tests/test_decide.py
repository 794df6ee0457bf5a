"""When a rescue begins."""

import logging
import tempfile
import unittest
from typing import Any

from toast_evacuator.config import Config
from toast_evacuator.decide import Decider
from toast_evacuator.journal import Incident, Journal


def config() -> Config:
    points = {"ctl": "10.0.0.10", "net": "10.0.0.20", "nas": "10.0.0.50"}
    computes = {"cmp1": "10.0.0.31", "cmp2": "10.0.0.32"}
    return Config("ctl", "10.0.0.10", "key", 1, 2, computes, points, "ctl")


class Deciding(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.journal = Journal(folder.name)
        self.begun: list[str] = []
        self.decider = self.fresh()
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)

    def fresh(self) -> Decider:
        return Decider(config(), self.journal, lambda incident: self.begun.append(incident.host))

    def see(self, now: float, gone: list[str], points: list[str] | None = None) -> None:
        sights: dict[str, Any] = {
            host: {"silent": 6.0, "failures": 4} if host in gone else {"silent": 0.2, "failures": 0} for host in ("cmp1", "cmp2")
        }
        for name in points or ["ctl", "net", "nas"]:
            self.decider.take({"from": name, "view": sights}, now)
        self.decider.decide(now, 5000.0 + now)

    def test_a_dead_compute_is_rescued_once(self) -> None:
        for second in range(5):
            self.see(second, ["cmp1"])
        self.assertEqual(self.begun, ["cmp1"])
        kept = self.journal.load()["cmp1"]
        self.assertEqual((kept.state, kept.agreed, kept.steps), ("detected", ["ctl", "net", "nas"], {"silent": 4994.0, "detected": 5000.0}))

    def test_it_may_die_again(self) -> None:
        self.see(0, ["cmp1"])
        self.decider.incidents["cmp1"].state = "recovered"
        self.see(1, [])
        self.see(2, ["cmp1"])
        self.assertEqual(self.begun, ["cmp1", "cmp1"])

    def test_a_restart_goes_on_with_what_is_not_over(self) -> None:
        self.journal.save(Incident("cmp1", state="fenced"))
        self.journal.save(Incident("cmp2", state="recovered"))
        self.journal.save(Incident("removed", state="fenced"))
        self.decider = self.fresh()
        self.see(0, ["cmp1"])
        self.assertEqual(self.begun, ["cmp1"])

    def test_with_nobody_left_to_take_over_nothing_is_done(self) -> None:
        self.see(0, ["cmp1", "cmp2"])
        self.assertEqual(self.begun, [])
        self.see(1, ["cmp1"])
        self.assertEqual(self.begun, ["cmp1"])

    def test_a_decider_that_is_cut_off_does_nothing(self) -> None:
        self.see(0, [])
        for second in range(1, 10):
            self.see(second, ["cmp1"], ["ctl"])
        self.see(10, ["cmp1", "cmp2"], ["ctl"])
        self.assertEqual(self.begun, [])

    def test_a_stranger_has_no_say(self) -> None:
        self.see(0, ["cmp1"], ["ctl", "cmp2", "other"])
        self.assertEqual(self.begun, [])

    def test_the_status(self) -> None:
        self.see(0, ["cmp1"], ["ctl", "net"])
        status = self.decider.status(1.0)
        self.assertEqual(status["vantage_points"], {"ctl": True, "net": True, "nas": False})
        self.assertEqual(status["quorum"], 2)
        self.assertEqual(status["computes"]["cmp1"]["state"], "detected")
        self.assertTrue(status["computes"]["cmp2"]["alive"])
