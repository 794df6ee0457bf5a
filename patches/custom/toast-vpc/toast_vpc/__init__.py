"""Virtual private clouds (VPCs) for Neutron: networks and routers of a project, within one range of addresses. See README.md."""
