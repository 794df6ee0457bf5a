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

libvirtd:
  service.running:
    - enable: true
    - watch:
      - file: /etc/libvirt/qemu.conf
      - file: /etc/default/libvirtd
