{% from "map.jinja" import at_boot, ini, service with context %}
{% from "ssh/map.jinja" import key_of with context %}

include:
  - node
  - nova.conf
  - nova.instances
  - libvirt
  - neutron.openvswitch_agent
  - ssh
  - sudo

# Beside nova.conf, which is the same for all of a node's roles: Debian's nova-compute reads both.
{{ ini("/etc/nova/nova-compute.conf", "nova", "nova", {
    "DEFAULT": {
        "compute_driver": "libvirt.LibvirtDriver",
    },
    "image_cache": {"subdirectory_name": "_base_" ~ pillar.node.name if pillar.nfs_client == "fuse" else "_base"},
    "libvirt": {
        "virt_type": pillar.virt_type,
        "cpu_mode": "none" if pillar.virt_type == "qemu" else "host-passthrough",
        "hw_machine_type": "x86_64=pc",
        "tb_cache_size": 32 if pillar.virt_type == "qemu" else none,
        "images_type": "raw",
        "num_pcie_ports": 0,
        "inject_partition": -2,
        "live_migration_scheme": "tcp",
        "nfs_mount_options": "vers=4.2",
    },
}, key="compute_config") }}

# Cold migration and resize copy and look by ssh from compute to compute, as nova.
nova-shell:
  user.present:
    - name: nova
    - shell: /bin/bash
    - require:
      - sls: nova.install

{{ key_of("nova", "/var/lib/nova") }}

/usr/lib/toastdev/resume-guests:
  file.managed:
    - source: salt://nova/files/resume-guests
    - mode: "0755"
    - makedirs: true

/etc/systemd/system/toastdev-guests.service:
  file.managed:
    - source: salt://nova/files/toastdev-guests.service

{{ at_boot("toastdev-guests.service", "/etc") }}

{{ service("nova", "nova-compute", ["/etc/nova/nova.conf", "/etc/nova/nova-compute.conf"],
    [{"service": "libvirtd"}, {"service": "openvswitch-underlay"}, {"service": "var-lib-nova-instances.mount"},
     {"file": "/usr/lib/toastdev/once-answers"}, {"sls": "sudo"}], dropin="nova/files/compute.service.conf") }}
