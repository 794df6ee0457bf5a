"""What is done about a dead compute, and what is not."""

import logging
import tempfile
import unittest
import unittest.mock

from tests.fakes import Crash, Kept, Region
from toast_evacuator import journal
from toast_evacuator.config import Timing
from toast_evacuator.journal import Incident
from toast_evacuator.region import Refused
from toast_evacuator.rescue import Rescue


class Rescuing(unittest.TestCase):
    def setUp(self) -> None:
        self.region = Region()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.journal = Kept(folder.name, self.region)
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)

    def rescue(self, incident: Incident | None = None) -> Incident:
        """To the end; the compute is back when nothing else says when."""
        incident = incident or Incident("cmp1", steps={"silent": 994.0, "detected": 1000.0})
        if self.region.returns is None:
            self.region.returns = 1100.0
        region = self.region
        Rescue(incident, self.journal, region, region, region.verdict, Timing(), region.clock, region.sleep).run()
        self.assertEqual(self.journal.load()["cmp1"], incident)
        return incident

    def test_the_order_of_things(self) -> None:
        incident = self.rescue()
        self.assertEqual(self.region.did[:2], ["off", "down"])
        self.assertEqual(sorted(self.region.did[2:5]), ["evacuate a", "evacuate b", "evacuate c"])
        self.assertEqual(self.region.did[5:], ["up"])
        self.assertEqual(incident.state, journal.RECOVERED)
        steps = [incident.steps[name] for name in ("proved_dead", "fenced", "forced_down", "evacuated", "back", "recovered")]
        self.assertEqual(steps, sorted(steps))
        for instance in incident.instances.values():
            self.assertEqual(instance.host, "cmp2")
            self.assertGreaterEqual(instance.requested or 0, incident.steps["proved_dead"])
            self.assertGreater(instance.active or 0, instance.requested or 0)

    def test_a_compute_that_is_not_fenced_is_not_evacuated(self) -> None:
        self.region.fence_broken = "503 refused"
        self.region.returns = 1060.0
        seen: list[str | None] = []
        incident = Incident("cmp1")
        sleep = self.region.sleep

        def look(seconds: float) -> None:
            seen.append(incident.alarm)
            sleep(seconds)

        self.region.sleep = look  # type: ignore[method-assign]
        self.rescue(incident)
        self.assertEqual(self.region.did, [])
        self.assertEqual(seen[0], "fencing failed, so nothing is evacuated: 503 refused")
        self.assertEqual(incident.state, journal.WITHDRAWN)

    def test_a_fence_that_works_again_is_used(self) -> None:
        self.region.fence_broken = "503 refused"
        sleep = self.region.sleep

        def mend(seconds: float) -> None:
            if self.region.now > 1010:
                self.region.fence_broken = ""
            sleep(seconds)

        self.region.sleep = mend  # type: ignore[method-assign]
        incident = self.rescue()
        self.assertEqual(self.region.did[0], "off")
        self.assertIsNone(incident.alarm)

    def test_who_is_back_before_the_fence_is_left_alone(self) -> None:
        self.region.dead, self.region.alive = False, True
        self.assertEqual(self.rescue().state, journal.WITHDRAWN)
        self.assertEqual(self.region.did, [])

    def test_an_old_verdict_fences_nobody(self) -> None:
        self.region.dead = False
        self.assertEqual(self.rescue().state, journal.WITHDRAWN)
        self.assertEqual(self.region.did, [])

    def test_without_forced_down_novas_own_verdict_is_waited_for(self) -> None:
        self.region = Region(forced_down=False)
        self.journal = Kept(str(self.journal._folder), self.region)
        incident = self.rescue()
        self.assertGreater(incident.steps["forced_down"], 1020)
        self.assertNotIn("down", self.region.did)
        self.assertTrue(all(instance.host == "cmp2" for instance in incident.instances.values()))

    def test_killed_anywhere_it_goes_on_from_there(self) -> None:
        for crash_at in range(60):
            with self.subTest(crash_at=crash_at), tempfile.TemporaryDirectory() as folder:
                self.region = Region()
                self.region.returns = 1400.0
                self.journal = Kept(folder, self.region)
                self.journal.save(Incident("cmp1"))
                self.region.crash_at = crash_at + 2
                try:
                    self.rescue()
                    self.assertGreater(crash_at, 10, "the crash was never reached")
                    return
                except Crash:
                    pass
                self.region.start_anew()
                incident = self.rescue(self.journal.load()["cmp1"])
                self.assertEqual(incident.state, journal.RECOVERED)
                self.assertEqual({i.host for i in incident.instances.values()}, {"cmp2"})
                self.assertEqual(set(self.region.hosts.values()), {"cmp2"})
                self.assertFalse(self.region.down)
                self.assertEqual(len([what for what in self.region.did if what.startswith("evacuate")]), 3)
                self.assertEqual(self.region.did[0], "off")
        self.fail("there is no end to it")

    def test_an_instance_that_nova_refuses_does_not_hold_up_the_others(self) -> None:
        evacuate = self.region.evacuate

        def refuse(id: str) -> None:
            self.region.refuse = "409 in vm_state paused" if id == "b" else ""
            evacuate(id)

        self.region.evacuate = refuse  # type: ignore[method-assign]
        told: list[str] = []
        with unittest.mock.patch.object(Rescue, "_alarm", lambda _, reason: told.append(reason)):
            incident = self.rescue()
        self.assertEqual(incident.instances["b"].error, "409 in vm_state paused")
        self.assertEqual(incident.instances["b"].tries, 3)
        self.assertEqual({incident.instances[id].host for id in "ac"}, {"cmp2"})
        self.assertEqual(told, ["not evacuated: server-b: 409 in vm_state paused"])

    def test_what_was_being_done_to_an_instance_died_with_its_compute(self) -> None:
        self.region.other_tasks["a"] = "rebooting"
        self.assertEqual(self.rescue().instances["a"].host, "cmp2")

    def test_who_is_powered_on_between_two_tries_loses_no_instance(self) -> None:
        def refuse(id: str) -> None:
            self.region.power_state = "running"
            raise Refused("503")

        self.region.evacuate = refuse  # type: ignore[method-assign]
        errors = {instance.error for instance in self.rescue().instances.values()}
        self.assertIn("cmp1 was powered on meanwhile", errors)
        self.assertEqual(set(self.region.hosts.values()), {"cmp1"})

    def test_an_instance_that_is_deleted_meanwhile(self) -> None:
        incident = Incident("cmp1", state=journal.FORCED_DOWN, instances={"x": journal.Instance("gone", "ACTIVE")})
        self.region.power_state, self.region.down = "stopped", True
        self.assertEqual(self.rescue(incident).instances["x"].error, "it was deleted")

    def test_who_is_powered_on_in_the_middle_keeps_what_is_left(self) -> None:
        incident = Incident("cmp1", state=journal.FORCED_DOWN)
        self.region.down, self.region.dead, self.region.alive = True, False, True
        self.assertEqual(self.rescue(incident).state, journal.RECOVERED)
        self.assertEqual(self.region.did, ["up"])

    def test_who_runs_though_it_was_fenced_is_fenced_anew(self) -> None:
        self.rescue(Incident("cmp1", state=journal.FENCED))
        self.assertEqual(self.region.did[:2], ["off", "down"])

    def test_a_compute_is_taken_back_when_it_has_cleaned_up(self) -> None:
        force_down = self.region.force_down
        told: list[str] = []

        def refuse(host: str, down: bool) -> None:
            if not down and self.region.now < 1130:
                raise Refused("its evacuated instances are not cleaned up")
            force_down(host, down)

        self.region.force_down = refuse  # type: ignore[method-assign]
        with unittest.mock.patch.object(Rescue, "_alarm", lambda _, reason: told.append(reason)):
            incident = self.rescue()
        self.assertGreaterEqual(incident.steps["recovered"], 1130)
        self.assertLess(incident.steps["back"], 1105)
        self.assertEqual(told, [])

    def test_a_flapping_compute_is_not_taken_back(self) -> None:
        incident = Incident("cmp1", state=journal.EVACUATED)
        self.region.power_state, self.region.down = "stopped", True
        beats = iter([True, True, False, True, True, True, False] + [True] * 20)
        at: list[float] = []

        def flap() -> object:
            self.region.alive = next(beats)
            at.append(self.region.now)
            return Region.verdict(self.region)

        self.region.returns = 9999.0
        self.region.verdict = flap  # type: ignore[method-assign,assignment]
        self.rescue(incident)
        self.assertEqual(incident.steps["back"], 1007.0)
        self.assertGreaterEqual(incident.steps["recovered"], 1012.0)
