"""Who is dead, and who only seems to be."""

import unittest

from toast_evacuator import verdict
from toast_evacuator.config import Timing
from toast_evacuator.verdict import View

POINTS = ["ctl", "net", "nas"]
NOW = 1000.0
TIMING = Timing()


def view(silent: float | None, failures: int = 0, age: float = 0.5) -> View:
    """Of a vantage point that the decider heard `age` seconds ago."""
    return View(NOW - age, {"cmp1": {"silent": silent, "failures": failures}})


GONE = view(6.0, 4)
HERE = view(0.4)


def judge(**views: View) -> verdict.Verdict:
    return verdict.judge("cmp1", POINTS, views, NOW, TIMING)


class Verdicts(unittest.TestCase):
    def test_all_agree(self) -> None:
        found = judge(ctl=GONE, net=GONE, nas=GONE)
        self.assertTrue(found.dead)
        self.assertEqual(found.agree, POINTS)
        self.assertAlmostEqual(found.silent or 0, 6.5)

    def test_two_of_three_are_enough(self) -> None:
        self.assertTrue(judge(ctl=GONE, net=GONE).dead)
        self.assertTrue(judge(net=GONE, nas=GONE, ctl=HERE).dead)

    def test_one_is_not(self) -> None:
        self.assertFalse(judge(ctl=GONE, net=HERE, nas=HERE).dead)

    def test_a_decider_that_is_cut_off_finds_nobody_dead(self) -> None:
        found = judge(ctl=GONE, net=view(6.0, 4, age=4.0), nas=view(6.0, 4, age=4.0))
        self.assertFalse(found.dead)
        self.assertEqual(found.missing, ["net", "nas"])
        self.assertIn("cut off", found.reason)

    def test_two_vantage_points_of_three_that_are_not_there_leave_no_quorum(self) -> None:
        self.assertFalse(judge(ctl=GONE).dead)

    def test_silence_alone_is_not_death(self) -> None:
        quiet = view(60.0, 0)
        found = judge(ctl=quiet, net=quiet, nas=quiet)
        self.assertFalse(found.dead)
        self.assertIn("the network reaches it from ctl, net, nas", found.reason)

    def test_nor_is_an_unreachable_network_alone(self) -> None:
        self.assertFalse(judge(ctl=view(1.0, 9), net=view(1.0, 9), nas=view(1.0, 9)).dead)

    def test_a_moment_of_silence_is_not_death(self) -> None:
        short = view(4.0, 2)
        self.assertFalse(judge(ctl=short, net=short, nas=short).dead)

    def test_silence_is_what_the_vantage_point_heard_not_how_long_its_view_took(self) -> None:
        late = view(3.0, 3, age=3.0)
        self.assertFalse(judge(ctl=late, net=late, nas=late).dead)

    def test_who_was_never_heard_has_not_died(self) -> None:
        never = view(None, 0)
        found = judge(ctl=never, net=never, nas=never)
        self.assertFalse(found.dead)
        self.assertEqual(found.reason, "it was never heard")

    def test_a_vantage_point_that_was_started_anew_has_no_say(self) -> None:
        self.assertTrue(judge(ctl=view(None), net=GONE, nas=GONE).dead)
        self.assertFalse(judge(ctl=view(None), net=view(None), nas=GONE).dead)

    def test_alive_is_by_quorum_too(self) -> None:
        self.assertTrue(judge(ctl=HERE, net=HERE, nas=GONE).alive)
        self.assertFalse(judge(ctl=HERE, net=GONE, nas=GONE).alive)

    def test_a_quorum_is_never_one_alone(self) -> None:
        self.assertEqual([verdict.quorum(n) for n in (1, 2, 3, 4, 5)], [2, 2, 2, 3, 3])

    def test_survivors_are_those_that_are_heard(self) -> None:
        verdicts = {"cmp1": judge(ctl=GONE, net=GONE, nas=GONE), "cmp2": judge(ctl=HERE, net=HERE, nas=HERE)}
        self.assertEqual(verdict.survivors(["cmp1", "cmp2"], verdicts), ["cmp2"])
