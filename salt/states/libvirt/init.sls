{% from "map.jinja" import at_boot with context %}
include:
  - libvirt.install

# A container has no cgroups, security modules or device namespaces of its own to give to guests.
/etc/libvirt/qemu.conf:
  file.managed:
    - source: salt://libvirt/files/qemu.conf
    - mode: "0600"

# nova-compute is connected all the time; going to sleep would only cost a start.
/etc/default/libvirtd:
  file.managed:
    - contents: LIBVIRTD_ARGS=""
    - mode: "0644"

{{ at_boot("libvirtd.service") }}

libvirtd:
  service.running:
    - enable: true
    - require:
      - file: /etc/systemd/system/multi-user.target.wants/libvirtd.service
    - watch:
      - file: /etc/libvirt/qemu.conf
      - file: /etc/default/libvirtd
