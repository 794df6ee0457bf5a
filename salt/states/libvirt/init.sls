{% from "map.jinja" import at_boot with context %}
include:
  - libvirt.install

# A container has no cgroups, security modules or device namespaces of its own to give to guests; a VM's guests need none.
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

{% if pillar.datapath == "userspace" %}
/usr/lib/toastdev/taps-up:
  file.managed:
    - source: salt://libvirt/files/taps-up
    - mode: "0755"
    - makedirs: true

/etc/systemd/system/taps-up.service:
  file.managed:
    - source: salt://libvirt/files/taps-up.service

{{ at_boot("taps-up.service", "/etc") }}

taps-up:
  service.running:
    - enable: true
    - require:
      - file: /etc/systemd/system/multi-user.target.wants/taps-up.service
    - watch:
      - file: /usr/lib/toastdev/taps-up
      - file: /etc/systemd/system/taps-up.service
{% endif %}
