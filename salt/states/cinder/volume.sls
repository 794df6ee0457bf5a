{% from "map.jinja" import service with context %}

include:
  - cinder.conf
  - nas
  - nas.client
  - sudo

{{ service("cinder", "cinder-volume", ["/etc/cinder/cinder.conf"],
    [{"service": "nfs-ganesha"}, {"file": "/sbin/mount.nfs"}, {"sls": "sudo"}], dropin="cinder/files/volume.service.conf") }}
