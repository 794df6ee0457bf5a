"""Ranges within ranges."""

import unittest

from toast_vpc import cidr


class Ranges(unittest.TestCase):
    def test_within(self) -> None:
        for inner, outer, want in [
            ("10.8.1.0/24", "10.8.0.0/16", True),
            ("10.8.0.0/16", "10.8.0.0/16", True),
            ("10.0.0.0/8", "10.8.0.0/16", False),
            ("10.9.1.0/24", "10.8.0.0/16", False),
            ("fd00:1::/64", "fd00:1::/48", True),
            ("fd00:1::/64", "10.8.0.0/16", False),
            ("10.8.1.0/24", "::/0", False),
        ]:
            with self.subTest(inner=inner, outer=outer):
                self.assertEqual(cidr.within(inner, outer), want)

    def test_one_way_to_write_a_range(self) -> None:
        self.assertEqual(cidr.canonical("10.8.3.1/16"), "10.8.0.0/16")
        self.assertEqual(cidr.canonical("FD00:0:0::1/48"), "fd00::/48")

    def test_what_is_no_range(self) -> None:
        for value in ("", "10.8.0.0", "10.8.0.0/33", "10.8.0/16", "blue", "blue/16", None, 10, ["10.8.0.0/16"]):
            with self.subTest(value):
                self.assertEqual(cidr.canonical(value), value)
