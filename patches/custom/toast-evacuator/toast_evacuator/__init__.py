"""Evacuates the instances of a compute that died, once it is fenced.

Computes send a heartbeat; vantage points on other nodes watch for it and check the network themselves; one of them
decides by their quorum. See README.md.
"""
