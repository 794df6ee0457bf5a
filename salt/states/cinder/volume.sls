include:
  - cinder.conf
  - nas
  - nas.client
  - sudo

/etc/systemd/system/cinder-volume.service.d/toastdev.conf:
  file.managed:
    - source: salt://cinder/files/volume.service.conf
    - mode: "0644"
    - makedirs: true

cinder-volume:
  service.running:
    - enable: true
    - require:
      - service: nfs-ganesha
      - file: /sbin/mount.nfs
      - file: /etc/sudo.conf
    - watch:
      - file: /etc/cinder/cinder.conf
      - file: /etc/systemd/system/cinder-volume.service.d/toastdev.conf
